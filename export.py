"""Write a trained model as one file for ONNX Runtime or torch.export, checked against torch."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import config
from common.exits import exits_cleanly
from common.flags import add_image_size, add_model_flags
from common.parser import Parser, number
from data.labels.classes import default_classes
from data.transforms import Resize
from inference.onnx_model import OUTPUTS as DESCRIBED
from inference.onnx_model import describe
from inference.protocol import Protocol
from model import HEADS, build_model
from networks import tracing
from networks.openvino_runtime import quiet
from networks.tracing import PictureModel
from predictor import Predictor, PredictorOptions, load_predictor
from utils import InputError, remove_leftovers, temporary_path

TOLERANCES = {"float32": 1e-3, "float16": 1e-2}  # by the weights' type, of the largest logit
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CPU = torch.device("cpu")
MAX_ONNX_BYTES = 2**31 - 2**20  # what one file can hold

Run = Callable[[Tensor], Tensor]  # pictures (B, 3, H, W) -> logits (B, K, H, W)


def resized(chosen: Predictor, image_size: tuple[int, int]) -> Predictor:
    """A copy for inputs of image_size (H, W); InputError for windows that are no squares."""
    protocol = chosen.protocol.overridden(image_size)
    if protocol.crop and len(set(image_size)) > 1:
        raise InputError("--imgsz: this model sees square windows; give one number")
    if protocol.crop and protocol.crop != image_size[0]:
        protocol = protocol.with_windows(image_size[0])
    return replace(chosen, protocol=protocol)


def export_model(
    path: Path,
    chosen: Predictor,
    *,
    dynamic: bool = False,
    weights_dtype: str = "float32",
    output: str = "logits",
) -> str:
    """Write a PictureModel to path, .onnx or .pt2, and say how near it comes to torch.

    dynamic: any batch, height and width; otherwise one picture of the protocol's size.
    weights_dtype: "float32" or "float16", in which matrices and kernels are stored.
    output: "logits", or "labels" for their argmax.

    Raises InputError where a package is missing, or the file does not give torch's numbers.
    """
    write = _writer(path)
    if not hasattr(chosen.model, "extract"):
        raise InputError(f"only a ViT with one of the heads {', '.join(HEADS)} can be exported")
    if dynamic and not tracing.has_dinov2_positions(chosen.model.backbone):
        raise InputError("--dynamic works with DINOv2's backbones only; export a file per size")
    remove_leftovers(path.parent, path.name)
    temporary = temporary_path(path, path.suffix.lower())
    tolerance = TOLERANCES[weights_dtype]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        difference = _write_and_compare(
            temporary, write, chosen, dynamic, dtype=weights_dtype, output=output
        )
        if not difference <= tolerance:  # NaN too
            raise InputError(
                f"{path} is not kept: its logits differ from torch's by {difference:.1e} of the "
                f"largest, more than {tolerance:.0e}; try the other format, float32 weights or "
                "another torch"
            )
        num_bytes = temporary.stat().st_size
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write ({error.strerror})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    height, width = chosen.protocol.input_size
    size = "any size and batch" if dynamic else f"{width} x {height} pixels"
    return (
        f"{path}: {size}, {weights_dtype} weights, {num_bytes / 1e6:.1f} MB, logits "
        f"within {difference:.0e} of the largest that torch gives"
    )


@torch.no_grad()
def _write_and_compare(
    path: Path, write: Callable, chosen: Predictor, dynamic: bool, *, dtype: str, output: str
) -> float:
    """The largest difference of the file's logits from torch's, as a share of the largest."""
    model, protocol = chosen.model.eval(), chosen.protocol
    size = protocol.input_size
    only_size = None if dynamic else size
    pictures = PictureModel(model, only_size, protocol.stretch).eval()
    notes = describe(protocol, chosen.classes, dynamic, output)
    with quiet(), tracing.traceable_positions(model.backbone, only_size):
        stored = tracing.Float16Weights(pictures) if dtype == "float16" else pictures
        stored = tracing.ClassIds(stored) if output == "labels" else stored
        patch = model.input_format.patch_size if dynamic else None
        run = write(path, tracing.traced(stored, size, patch), notes)
    return _largest_difference(pictures, run, _test_shapes(model, size, dynamic))


def _writer(path: Path) -> Callable[..., Run]:
    """What writes this kind of file; InputError where there is none or a package is missing."""
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path}: give a name that ends in .onnx or .pt2")
    if suffix == ".pt2":
        return _write_pt2
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise InputError(f"{path} needs {', '.join(missing)}: pip install {' '.join(missing)}")
    return _write_onnx


def _write_pt2(path: Path, program: ExportedProgram, notes: dict[str, str]) -> Run:
    torch.export.save(program, path, extra_files=notes)
    return torch.export.load(path).module()


def _write_onnx(path: Path, program: ExportedProgram, notes: dict[str, str]) -> Run:
    import onnxruntime

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MAX_ONNX_BYTES:
        raise InputError(
            f"{size / 1e9:.1f} GB of weights: ONNX files hold 2 GB; export with --weights-dtype "
            "float16, or a .pt2"
        )
    outputs = [notes["output"].partition(",")[0]]
    onnx = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["images"], output_names=outputs
    )
    onnx.model.metadata_props.update(notes)
    onnx.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _test_shapes(
    model: nn.Module, image_size: tuple[int, int], dynamic: bool
) -> list[tuple[int, int, int]]:
    """(B, H, W)s to compare at; with dynamic also the size whose position table is stored."""
    if not dynamic:
        return [(1, *image_size)]
    patch = model.input_format.patch_size
    side = patch * math.isqrt(model.backbone.pos_embed.shape[1] - 1)
    small = patch * 5 + 3, patch * 3 + 5
    batches = [(batch, *small) for batch in (2, 3, 4)]
    return [(1, *image_size), *batches, (1, side, side), (1, side, side + patch)]


def _largest_difference(
    pictures: PictureModel, run: Run, shapes: list[tuple[int, int, int]]
) -> float:
    """Between torch's logits and the file's, as a share of the largest, on random pictures."""
    generator, worst = np.random.default_rng(0), 0.0
    for batch, *size in shapes:
        noise = generator.uniform(0, 255, (batch, 3, *size)).astype(np.float32)
        images = torch.from_numpy(noise)
        expected, found = pictures(images), run(images)
        largest = expected.abs().max()
        if found.dtype == torch.uint8:  # class ids, whose logits are compared with the pixel's best
            found = expected.gather(1, found[:, None].long())
            expected = expected.amax(1, keepdim=True)
        difference = (found - expected).abs().max() / largest
        worst = max(worst, difference.item()) if difference.isfinite() else float("nan")
    return worst


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Write a model as one file for ONNX Runtime or torch.export.")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE",
        help="FILE.onnx (ONNX Runtime) or FILE.pt2 (torch.export), checked against torch: RGB "
        "0..255 float32 (B, 3, H, W) to logits (B, K, H, W), B = 1 without --dynamic")
    parser.add_argument("--model", metavar="FILE",
        help="a trained checkpoint or a published head, in place of --backbone, --head and "
        "--num-classes")
    add_model_flags(parser, HEADS, None, "; default: none, or what --model was trained on")
    parser.add_argument("--num-classes", type=number(2, config.MAX_CLASSES, whole=True),
        default=21, help="number of classes")
    add_image_size(parser, None, "; default: 640 640, or what --model was trained on")
    parser.add_argument("--output", default="logits", choices=tuple(DESCRIBED),
        help="labels: class ids (B, H, W) uint8 in place of logits, without a confidence")
    parser.add_argument("--dynamic", action="store_true",
        help="export for any batch, height and width, not for one picture of --imgsz alone")
    parser.add_argument("--weights-dtype", default="float32", choices=tuple(TOLERANCES),
        help="number type in which the file stores the weights; float16 halves it. The "
        "computation is in float32")
    return parser
# fmt: on


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = get_args_parser()
    args = parser.parse_args(argv)
    if args.model:
        named = ("--backbone", "--head", "--num-classes")
        parser.refuse_given(args, named, "is what --model was trained with: leave it out")
        options = PredictorOptions(weights=args.weights, hub_repo=args.hub_repo)
        chosen = load_predictor(args.model, CPU, options)
    else:
        spec = config.ModelConfig(
            args.backbone, args.head, args.num_classes, args.weights or "none", args.hub_repo
        )
        model = build_model(spec)
        protocol = Protocol(Resize((640, 640), input_format=model.input_format))
        chosen = Predictor(model, default_classes(args.num_classes), protocol, CPU)
    if args.imgsz:
        chosen = resized(chosen, args.imgsz)
    said = export_model(
        args.to, chosen, dynamic=args.dynamic, weights_dtype=args.weights_dtype, output=args.output
    )
    print(said)


if __name__ == "__main__":
    main()
