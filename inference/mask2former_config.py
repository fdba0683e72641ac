"""Meta's published Mask2Former config, read for the settings that no tensor's shape shows.

A config of MMSegmentation 0.x is a Python file that assigns numbers, strings, lists and `dict(...)`
to names. These values are read from its syntax tree; the file is never executed.
"""

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from inference.protocol import Protocol, ShortSide
from networks.mask2former.config import Mask2FormerConfig
from utils import InputError

MAX_BYTES = 10**6  # the published configs have some ten thousand
_ENCODER = "model.decode_head.pixel_decoder.encoder.transformerlayers.attn_cfgs"
_DECODER = "model.decode_head.transformer_decoder.transformerlayers.attn_cfgs"
# Fields of Mask2FormerConfig whose wrong value would go unnoticed, and where the config has them.
SETTINGS = {
    "num_heads": "model.backbone.num_heads",
    "n_points": "model.backbone.n_points",
    "deform_num_heads": "model.backbone.deform_num_heads",
    "interaction_indexes": "model.backbone.interaction_indexes",
    "gn_groups": "model.decode_head.pixel_decoder.norm_cfg.num_groups",
    "pixel_heads": f"{_ENCODER}.num_heads",
    "pixel_points": f"{_ENCODER}.num_points",
    "decoder_heads": f"{_DECODER}.num_heads",
}


def read_config(
    path: Path, config: Mask2FormerConfig, protocol: Protocol
) -> tuple[Mask2FormerConfig, Protocol, list[str]]:
    """config and protocol updated from the file, and the names of settings that it lacks."""
    values = read_assignments(path)
    found = {name: lookup(values, place) for name, place in SETTINGS.items()}
    try:
        config = replace(config, **{name: v for name, v in found.items() if v is not None})
        _check(config)
        found["windows"], found["scales"] = _windows(values), _scales(values)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: {error}; put the published file there, or remove this one"
        ) from error
    protocol = replace(protocol, **found["windows"], **found["scales"])
    return config, protocol, [name for name, value in found.items() if not value]


def read_assignments(path: Path) -> dict[str, object]:
    """Top-level names of a Python file and their plain values, None where a value is not plain."""
    try:
        text = path.read_bytes()[:MAX_BYTES].decode()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{path}: not a config of MMSegmentation ({type(error).__name__}); put the published "
            "file there, or remove it"
        ) from error
    names: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            value = _plain(node.value, names)
            names |= {target.id: value for target in node.targets if isinstance(target, ast.Name)}
    return names


def _plain(node: ast.expr, names: Mapping[str, object]) -> object:
    """The value of an expression that is plain data (tuples become lists), else None."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name):
            return names.get(name)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_plain(item, names) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {k.value: _plain(v, names) for k, v in pairs if isinstance(k, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {word.arg: _plain(word.value, names) for word in keywords if word.arg}
    return None


def lookup(values: object, place: str) -> object:
    """The value at "a.b.c" in nested dicts, else None. A list stands for its first dict."""
    for key in place.split("."):
        if isinstance(values, list):
            values = next((item for item in values if isinstance(item, dict)), None)
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _check(config: Mask2FormerConfig) -> None:
    """Raise ValueError if a setting is impossible."""
    for name in SETTINGS.keys() - {"interaction_indexes"}:
        value = getattr(config, name)
        width = config.embed_dim * (config.deform_ratio if name == "deform_num_heads" else 1)
        is_divisor = _is_count(value) and int(width) % value == 0
        if not (_is_count(value) if name.endswith("points") else is_divisor):
            raise ValueError(f"{name} is {value!r}, expected a divisor of {int(width)}")
    starts = [first for first, _ in config.interaction_indexes]
    stops = [last + 1 for _, last in config.interaction_indexes]
    groups = zip(starts, stops, strict=True)
    if [*starts, config.depth] != [0, *stops] or any(start >= stop for start, stop in groups):
        raise ValueError(
            f"interaction_indexes are {config.interaction_indexes}, expected the first and last "
            f"blocks of groups that follow each other, from 0 to {config.depth - 1}"
        )


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _windows(values: dict[str, object]) -> dict[str, object]:
    """Protocol's crop and stride from the model's test_cfg; empty if it has none."""
    test = lookup(values, "model.test_cfg")
    match lookup(test, "mode"), lookup(test, "crop_size"), lookup(test, "stride"):
        case "whole", _, _:
            return {"crop": None, "stride": None}
        case "slide", [int(crop), width], [int(stride), step] if (
            crop == width >= stride == step > 0
        ):
            return {"crop": crop, "stride": stride}
        case "slide", crop, stride:
            raise ValueError(f"its windows are {crop} every {stride}, expected squares")
    return {}


def _scales(values: dict[str, object]) -> dict[str, object]:
    """Protocol's resize, ratios and flip from the test pipeline; empty if it has none."""
    pipeline = lookup(values, "data.test.pipeline") or lookup(values, "test_pipeline")
    views = _step(pipeline, "MultiScaleFlipAug")
    sides = lookup(views, "img_scale")
    if not isinstance(sides, list):
        return {}
    rounding = _step(lookup(views, "transforms"), "ResizeToMultiple")
    multiple = 1 if rounding is None else rounding.get("size_divisor", 32)
    ratios = lookup(views, "img_ratios") or 1.0
    ratios = tuple(ratios) if isinstance(ratios, list) else (ratios,)
    if len(sides) != 2 or not all(map(_is_count, [*sides, multiple])):
        raise ValueError(f"its img_scale is {sides} in steps of {multiple}, expected two sides")
    if not all(isinstance(ratio, int | float) and 0 < ratio <= 10 for ratio in ratios):
        raise ValueError(f"its img_ratios are {ratios}, expected numbers between 0 and 10")
    resize = ShortSide(min(sides), max(sides), multiple)
    return {"resize": resize, "ratios": ratios, "flip": lookup(views, "flip") is True}


def _step(pipeline: object, kind: str) -> dict | None:
    """The first step of a type in a pipeline."""
    steps = pipeline if isinstance(pipeline, list) else []
    return next((s for s in steps if isinstance(s, dict) and s.get("type") == kind), None)
