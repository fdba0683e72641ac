"""DINOv2's best ADE20K model, a Mask2Former on a ViT-Adapter: addresses, loading, test protocol.

Source: the model card of facebookresearch/dinov2. Settings that the tensors' shapes do not show are
read from the published config, a Python file of MMSegmentation 0.x that assigns numbers, strings,
lists and `dict(...)` to names. They are read from its syntax tree; the file is never executed.
Without it, the defaults here and in Mask2FormerConfig are used, and a line on stdout lists them.
"""

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from common.tensor_files import check_state, hub_file, load_published
from config import PredictorOptions
from data.labels.classes import ADE20K, Classes
from inference.protocol import Protocol, ShortSide
from networks.mask2former.config import Mask2FormerConfig
from networks.mask2former.network import INPUT_MULTIPLE, Mask2Former
from utils import InputError

NAME = "dinov2_vitg14_ade20k_m2f"
PAPER_MIOU = 60.2  # percent, on ADE20K's validation images (Oquab et al. 2023, section 7.4)
PARAMETERS = 1_719_806_999
FILE_BYTES = 4 * PARAMETERS
ARCHITECTURE = Mask2FormerConfig()
# Inferred from the unedited parts of an edited copy of Meta's config. Meta's stored result of the
# notebook's picture agrees: it has a seam at column 174 of 640, where the second window begins
# when the picture is resized to 704 x 512 pixels.
PROTOCOL = Protocol(ShortSide(512, 2048, INPUT_MULTIPLE), 512, 341, stretch=True)
_BASE_URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14"
URL = f"{_BASE_URL}/{NAME}.pth"
CONFIG_URL = f"{_BASE_URL}/{NAME}_config.py"
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


def is_m2f(model: str) -> bool:
    """Whether this is the model's name or a file with that name."""
    return Path(model).stem == NAME


def check_m2f_options(model: str | Path, options: PredictorOptions) -> None:
    """Raise InputError for options that this model does not take."""
    if options.weights or options.hub_repo:
        raise InputError(f"{model} has its own backbone: leave out --weights and --hub-repo")
    if options.min_confidence:
        raise InputError(
            f"--min-confidence: {model} gives scores, and their softmax stays near 1/150 even "
            "where the model is certain; leave it out"
        )


def load_m2f(
    model: str, device: torch.device, dtype: torch.dtype
) -> tuple[Mask2Former, Classes, Protocol, float]:
    """The model by its name (downloaded once, 6.9 GB) or file, on the device and in dtype.

    The file is mapped into memory and read tensor by tensor, so loading takes no more memory than
    the model itself. Prints where the settings come from. The last value is the paper's mIoU (%).
    """
    path = hub_file(URL) if model == NAME else Path(model)
    state = load_published(path, mapped=True)
    config, protocol = _settings(path)
    with torch.device("meta"):
        module = Mask2Former(config)
    check_state(state, module.state_dict(), f"{path} is not {NAME}")
    for name, value in state.items():
        floating = value.is_floating_point()
        # Integer counters are copied: a view would keep the whole file mapped.
        state[name] = value.to(device, dtype) if floating else value.to(device, copy=True)
    module.load_state_dict(state, strict=True, assign=True)
    return module.requires_grad_(False).eval(), ADE20K, protocol, PAPER_MIOU


def _settings(path: Path) -> tuple[Mask2FormerConfig, Protocol]:
    """Of the config beside the weights, in torch.hub's folder or downloaded; else the defaults."""
    config, protocol, assumed = ARCHITECTURE, PROTOCOL, ["all settings"]
    source = path.with_name(f"{NAME}_config.py")
    try:
        source = source if source.is_file() else hub_file(CONFIG_URL)
    except InputError:  # cannot be downloaded
        source = None
    if source:
        config, protocol, assumed = read_config(source, config, protocol)
        print(f"{NAME}: settings read from {source}")
    if assumed:
        print(f"{NAME}: not in a published config, defaults used: {', '.join(assumed)}")
    return config, protocol


def read_config(
    path: Path, config: Mask2FormerConfig, protocol: Protocol
) -> tuple[Mask2FormerConfig, Protocol, list[str]]:
    """config and protocol updated from the file, and the names of settings that it lacks."""
    try:
        values = _assignments(ast.parse(path.read_text(encoding="utf-8")))
        found = {name: _lookup(values, place) for name, place in SETTINGS.items()}
        found = {k: v if isinstance(v, int | float | list) else None for k, v in found.items()}
        config = replace(config, **{name: v for name, v in found.items() if v is not None})
        found |= {"windows": _windows(values), "scales": _scales(values)}
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the config of {NAME} ({type(error).__name__}); put the published file "
            "there, or remove it"
        ) from error
    protocol = replace(protocol, **found["windows"], **found["scales"])
    return config, protocol, [name for name, value in found.items() if not value]


def _assignments(tree: ast.Module) -> dict[str, object]:
    """Top-level names of a Python file and their plain values, None where a value is not plain."""
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


def _lookup(values: object, place: str) -> object:
    """The value at "a.b.c" in nested dicts, else None. A list stands for its first dict."""
    for key in place.split("."):
        if isinstance(values, list):
            values = next((item for item in values if isinstance(item, dict)), None)
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _windows(values: dict[str, object]) -> dict[str, object]:
    """Protocol's crop and stride from the model's test_cfg; empty if it has none."""
    match _lookup(values, "model.test_cfg"):
        case {"mode": "whole"}:
            return {"crop": None, "stride": None}
        case {"mode": "slide", "crop_size": [int(crop), _], "stride": [int(stride), _]}:
            return {"crop": crop, "stride": stride}
    return {}


def _scales(values: dict[str, object]) -> dict[str, object]:
    """Protocol's resize, ratios and flip from the test pipeline; empty if it has none."""
    pipeline = _lookup(values, "data.test.pipeline") or _lookup(values, "test_pipeline")
    views = _step(pipeline, "MultiScaleFlipAug")
    if not views:
        return {}
    rounding, sides = _step(views["transforms"], "ResizeToMultiple"), views["img_scale"]
    multiple = 1 if rounding is None else rounding.get("size_divisor", 32)
    ratios = views.get("img_ratios") or 1.0
    ratios = tuple(ratios) if isinstance(ratios, list) else (ratios,)
    resize = ShortSide(min(sides), max(sides), multiple)
    return {"resize": resize, "ratios": ratios, "flip": views.get("flip") is True}


def _step(pipeline: object, kind: str) -> dict | None:
    """The first step of a type in a pipeline."""
    steps = pipeline if isinstance(pipeline, list) else []
    return next((s for s in steps if isinstance(s, dict) and s.get("type") == kind), None)


def summary() -> str:
    """The line that --list-models prints for this model."""
    return (
        f"  {NAME:<30} {ADE20K.num_classes:>3} classes, {PARAMETERS:,} parameters "
        f"({FILE_BYTES / 1e9:.1f} GB), mIoU in the paper {PAPER_MIOU} %"
    )
