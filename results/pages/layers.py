"""What a page shows of a picture: itself, and class maps whose classes can be switched off.

A page that is opened from disk may not read the pixels of a picture file, nor use one as a CSS
mask. The class maps are therefore PNGs with a palette in a script, `NAME.js`, which hands them to
the page as text; the picture is in the same file, since a second one costs more than its pixels.
To hide a class the page sets the class's entry in the PNG's table of transparency to 0. Class ids
stay exact, no canvas is read, and colour management changes nothing.
"""

import base64
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
from PIL import Image

from config import IGNORE_INDEX
from data.labels.classes import IGNORED_COLOUR, Classes, Colour
from utils import write_atomically

FOLDER = "page"  # within the output folder
PREVIEW_SIDE = 960  # pixels of the long side, at most
CONFIDENCE_SIDE = 320  # it has no finer detail than the network's patches
QUALITY = 80  # of JPEGs
PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}  # class maps are long runs of equal ids
RIGHT_AND_WRONG = ((0, 0, 0), (220, 38, 127))  # palette of the layer "errors"


def write_layers(
    folder: Path,
    name: Path,
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    classes: Classes,
    confidence: np.ndarray | None = None,
) -> None:
    """Write a picture and its layers, one file below folder/page.

    Args:
        name: relative, without extension.
        image: RGB (H, W, 3) uint8.
        maps: class ids (H', W') uint8, ignored ones 255, by the name of the layer. "prediction"
            and "target" together give a layer "errors" too.
        confidence: (H, W) float32 0..1.
    """
    palette = (*classes.palette, IGNORED_COLOUR)  # ignored pixels become the id after the last
    small = {k: fit(ids, PREVIEW_SIDE, cv2.INTER_NEAREST_EXACT) for k, ids in maps.items()}
    layers = {"picture": _jpeg(cv2.cvtColor(fit(image, PREVIEW_SIDE), cv2.COLOR_RGB2BGR))}
    for layer, ids in small.items():
        layers[layer] = _palette_png(np.minimum(ids, classes.num_classes), palette)
    if {"prediction", "target"} <= small.keys():
        wrong = (small["prediction"] != small["target"]) & (small["target"] != IGNORE_INDEX)
        layers["errors"] = _palette_png(wrong.astype(np.uint8), RIGHT_AND_WRONG)
    if confidence is not None:
        step = -(-max(confidence.shape) // CONFIDENCE_SIDE)  # smooth, so no mean is needed
        layers["confidence"] = _jpeg(cv2.convertScaleAbs(confidence[::step, ::step], alpha=255))
    encoded = [b'"%s":"%s"' % (k.encode(), base64.b64encode(v)) for k, v in layers.items()]
    write_atomically(folder / layers_path(name), b"layers({%s})" % b",".join(encoded))


def layers_path(name: Path) -> Path:
    """Where a picture's layers lie, relative to the output folder."""
    return Path(FOLDER, name.with_name(name.name + ".js"))


def url(path: Path | str) -> str:
    """A relative path as an address in a page, whatever characters it has."""
    return quote(os.fsencode(Path(path).as_posix()))


def fit(image: np.ndarray, side: int, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    """A picture whose long side is at most `side` pixels; the same array where it fits."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, round(scale * length)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=interpolation)


def _palette_png(ids: np.ndarray, palette: Sequence[Colour]) -> bytes:
    image = Image.fromarray(ids, mode="P")
    image.putpalette(np.uint8(palette).tobytes())
    content = io.BytesIO()
    opaque = b"\xff" * len(palette)
    image.save(content, "PNG", transparency=opaque, **PNG)
    return content.getvalue()


def _jpeg(image: np.ndarray) -> bytes:
    """BGR (H, W, 3) or grey (H, W) uint8, as OpenCV takes them."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
