"""A model as one file for ONNX Runtime or torch.export, checked against torch before it is kept."""

import json
import math
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from config import HEADS
from inference.tracing import (
    PictureModel,
    has_dinov2_positions,
    traceable_positions,
    traced,
    whole_patches,
)
from labels.classes import Classes
from utils import InputError, remove_leftovers, temporary_path

TOLERANCE = 1e-3  # of the largest logit
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_ONNX_BYTES = 2**31 - 2**20  # what one file can hold

Run = Callable[[Tensor], Tensor]  # pictures (1, 3, H, W) -> logits (1, K, H, W)


@dataclass(frozen=True)
class Exportable:
    """A model and how pictures are brought to it.

    model: a SegmentationModel. image_size: (H, W) that it was made for. classes: None if they have
    no names. stretch: see Protocol. resize: "stretch" to the input's size, "pad" (proportions kept,
    centred, the mean colour around), or "windows" (of this size, see the published heads).
    """

    model: nn.Module
    image_size: tuple[int, int]
    classes: Classes | None = None
    stretch: bool = False
    resize: str = "stretch"


def export_model(
    path: Path, chosen: Exportable, image_size: tuple[int, int], dynamic: bool = False
) -> str:
    """Write a PictureModel to path, .onnx or .pt2, and say how near it comes to torch.

    image_size: (H, W) of the input; a dynamic file takes any size.

    Raises InputError where a package is missing, or the file does not give torch's numbers.
    """
    write = _writer(path)
    if not hasattr(chosen.model, "extract"):
        raise InputError(f"only a ViT with one of the heads {', '.join(HEADS)} can be exported")
    if dynamic:
        image_size = whole_patches(chosen.model, image_size)
        if not has_dinov2_positions(chosen.model.backbone):
            raise InputError("--dynamic works with DINOv2's backbones only; export a file per size")
    remove_leftovers(path.parent, path.name)
    temporary = temporary_path(path, path.suffix.lower())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        difference = _write_and_compare(temporary, write, chosen, image_size, dynamic)
        if not difference <= TOLERANCE:  # NaN too
            raise InputError(
                f"{path} is not kept: its logits differ from torch's by {difference:.1e} of the "
                f"largest, more than {TOLERANCE:.0e}; try the other format or another torch"
            )
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write ({error.strerror})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    size = "any size" if dynamic else f"{image_size[1]} x {image_size[0]} pixels"
    return f"{path}: {size}, logits within {difference:.0e} of the largest that torch gives"


@torch.no_grad()
def _write_and_compare(
    path: Path, write: Callable, chosen: Exportable, image_size: tuple[int, int], dynamic: bool
) -> float:
    """The largest difference of the file's logits from torch's, as a share of the largest."""
    model = chosen.model.eval()
    wrapped = PictureModel(model, None if dynamic else image_size, chosen.stretch).eval()
    with warnings.catch_warnings(), traceable_positions(model, image_size, dynamic):
        warnings.simplefilter("ignore")  # the exporters' about themselves
        run = write(path, wrapped, image_size, dynamic, _description(chosen, image_size, dynamic))
    return _largest_difference(wrapped, run, _test_sizes(model, image_size, dynamic))


def _writer(path: Path) -> Callable[..., Run]:
    """What writes this kind of file; InputError where there is none or a package is missing."""
    writers = {".onnx": _write_onnx, ".pt2": _write_pt2}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: give a name that ends in .onnx or .pt2")
    if path.suffix.lower() == ".onnx":
        missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
        if missing:
            raise InputError(f"{path} needs {', '.join(missing)}: pip install {' '.join(missing)}")
    return writers[path.suffix.lower()]


def _description(chosen: Exportable, image_size: tuple[int, int], dynamic: bool) -> dict[str, str]:
    """The file's metadata: what a program must do with a picture; all but texts are JSON."""
    expects = chosen.model.input_format
    notes = {
        "input": "RGB, 0 to 255, float32, (1, 3, height, width), upright by its EXIF orientation",
        "output": "logits, float32, (1, classes, height, width)",
        "normalisation": "in the file: (input / 255 - mean) / std",
        "mean": json.dumps(expects.mean),
        "std": json.dumps(expects.std),
        "resize": chosen.resize,
        "padding_colour": json.dumps([round(255 * channel) for channel in expects.mean]),
        "image_size": json.dumps({"height": image_size[0], "width": image_size[1]}),
        "any_size": json.dumps(dynamic),
    }
    if chosen.classes is not None:
        notes["classes"] = json.dumps(chosen.classes.names)
        notes["palette"] = json.dumps(chosen.classes.palette)
    return notes


def _write_pt2(
    path: Path, wrapped: nn.Module, image_size: tuple[int, int], dynamic: bool, notes: dict
) -> Run:
    torch.export.save(traced(wrapped, image_size, dynamic), path, extra_files=notes)
    return torch.export.load(path).module()


def _write_onnx(
    path: Path, wrapped: nn.Module, image_size: tuple[int, int], dynamic: bool, notes: dict
) -> Run:
    import onnxruntime

    size = sum(p.nbytes for p in wrapped.parameters())
    if size > MAX_ONNX_BYTES:
        raise InputError(f"{size / 1e9:.1f} GB of weights: ONNX files hold 2 GB; export a .pt2")
    program = torch.onnx.export(
        traced(wrapped, image_size, dynamic),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
    )
    program.model.metadata_props.update(notes)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _test_sizes(
    model: nn.Module, image_size: tuple[int, int], dynamic: bool
) -> list[tuple[int, int]]:
    """(H, W)s to compare at; with dynamic also the one whose position table is stored."""
    if not dynamic:
        return [image_size]
    patch = model.input_format.patch_size
    side = patch * math.isqrt(model.backbone.pos_embed.shape[1] - 1)
    return [image_size, (patch * 5 + 3, patch * 3 + 5), (side, side), (side, side + patch)]


def _largest_difference(wrapped: nn.Module, run: Run, sizes: list[tuple[int, int]]) -> float:
    """Between torch's logits and the file's, as a share of the largest, on random pictures."""
    generator, worst = np.random.default_rng(0), 0.0
    for size in sizes:
        images = torch.from_numpy(generator.uniform(0, 255, (1, 3, *size)).astype(np.float32))
        expected, found = wrapped(images), run(images)
        difference = (found - expected).abs().max() / expected.abs().max()
        worst = max(worst, difference.item()) if difference.isfinite() else float("nan")
    return worst
