"""The metadata of an exported file: classes, and how a picture is shown to the model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any

from common.checkpoints import CHECKPOINT_FORMAT, description_problems, short
from config import MAX_IMAGE_SIDE, InputFormat
from data.labels.classes import Classes
from data.transforms import Resize, mean_colour
from inference.protocol import NO_LIMIT, OwnSize, Protocol, ShortSide
from utils import InputError

HOW_TO_EXPORT = "python export.py --model CHECKPOINT --to FILE.onnx"
# Metadata that is read back: names, and their types once decoded from JSON.
FIELDS = {
    "classes": (list,),
    "palette": (list,),
    "mean": (list,),
    "std": (list,),
    "patch_size": (int,),
    "image_size": (dict,),  # height and width of the input, or of its windows
    "short_side": (int, NoneType),  # of ShortSide, for windows; None for OwnSize
    "long_side": (int, NoneType),
    "stride": (int, NoneType),  # of windows
    "ratios": (list,),
    "flip": (bool,),
}
OUTPUTS = {
    "logits": "logits, float32, (batch, classes, height, width)",
    "labels": "labels, class ids, uint8, (batch, height, width)",
}
MAX_RATIOS, MAX_RATIO = 16, 10
MIN_STRIDE = 8  # of windows: their side divided by this


def describe(protocol: Protocol, classes: Classes, any_size: bool, output: str) -> dict[str, str]:
    """The metadata of an exported file: what a program must do with a picture.

    The first five are texts, all others JSON.
    """
    resize, expects = protocol.resize, protocol.resize.input_format
    height, width = protocol.input_size
    texts = {
        "format": CHECKPOINT_FORMAT,
        "input": "RGB, 0 to 255, float32, (batch, 3, height, width), upright by its EXIF "
        "orientation",
        "output": OUTPUTS[output],
        "normalisation": "in the file: (input / 255 - mean) / std",
        "resize": "windows" if protocol.crop else "pad" if resize.keep_ratio else "stretch",
    }
    values = {
        "classes": classes.names,
        "palette": classes.palette,
        "mean": expects.mean,
        "std": expects.std,
        "patch_size": expects.patch_size,
        "padding_colour": mean_colour(expects),
        "image_size": {"height": height, "width": width},
        "any_size": any_size,
        "short_side": getattr(resize, "short", None),
        "long_side": getattr(resize, "long", None),
        "stride": protocol.stride,
        "ratios": protocol.ratios,
        "flip": protocol.flip,
    }
    return texts | {name: json.dumps(value) for name, value in values.items()}


def read_description(path: Path, metadata: Mapping[str, str]) -> tuple[Classes, Protocol]:
    """The classes and protocol that `describe` wrote; InputError for all other metadata."""
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path}: no classes and protocol in its metadata, which export.py writes; make it "
            f"with {HOW_TO_EXPORT}"
        )
    try:
        notes: dict[str, Any] = {name: json.loads(metadata[name]) for name in FIELDS}
    except KeyError as error:
        raise InputError(f"{path}: its metadata lacks {error}; export it again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its metadata is no JSON; export it again") from error
    for name, kinds in FIELDS.items():
        if type(notes[name]) not in kinds:
            raise InputError(f"{path}: its metadata {name} is {short(notes[name])}; export again")
    notes["image_size"] = [notes["image_size"].get(side) for side in ("height", "width")]
    notes["resize"] = metadata.get("resize")
    for problem in chain(description_problems(notes), _protocol_problems(notes)):
        raise InputError(f"{path}: {problem}; export it again")
    palette = tuple(tuple(colour) for colour in notes["palette"])
    return Classes(tuple(notes["classes"]), palette), _protocol(notes)


def _protocol_problems(notes: dict) -> Iterator[str]:
    """Problems of how pictures are shown, in metadata without other problems."""
    (height, width), ratios, resize = (notes[name] for name in ("image_size", "ratios", "resize"))
    if not 1 <= len(ratios) <= MAX_RATIOS or not all(map(_is_ratio, ratios)):
        yield f"its ratios {short(ratios)} are not 1 to {MAX_RATIOS} plausible numbers"
    if resize not in ("stretch", "pad", "windows"):
        yield f"its resize {short(resize)} is not stretch, pad or windows"
    if resize == "windows":
        stride, short_side, long_side = (notes[n] for n in ("stride", "short_side", "long_side"))
        if height != width or stride is None or not height / MIN_STRIDE <= stride <= height:
            yield f"its windows {width} x {height} every {short(stride)} pixels are not plausible"
        limits = (short_side, MAX_IMAGE_SIDE), (long_side, NO_LIMIT)
        if short_side is not None and not all(n and 1 <= n <= limit for n, limit in limits):
            yield f"its sides {short(short_side)} and {short(long_side)} are not plausible"


def _is_ratio(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= MAX_RATIO


def _protocol(notes: dict) -> Protocol:
    expects = InputFormat(notes["patch_size"], tuple(notes["mean"]), tuple(notes["std"]))
    size = tuple(notes["image_size"])
    if notes["resize"] != "windows":
        protocol = Protocol(Resize(size, notes["resize"] == "pad", expects))
    elif notes["short_side"] is None:
        protocol = Protocol(OwnSize(input_format=expects), size[0], notes["stride"])
    else:
        sides = ShortSide(notes["short_side"], notes["long_side"], input_format=expects)
        protocol = Protocol(sides, size[0], notes["stride"])
    return replace(protocol, ratios=tuple(notes["ratios"]), flip=notes["flip"])
