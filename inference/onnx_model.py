"""An exported ONNX file in place of a checkpoint: its metadata, and ONNX Runtime, which runs it.

ONNX Runtime is an optional dependency: `pip install onnxruntime`. The file is not trusted: its
metadata, inputs and outputs are checked, and ONNX Runtime reads no tensors from other folders.
"""

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.checkpoints import CHECKPOINT_FORMAT, description_problems, short
from config import MAX_IMAGE_SIDE, InputFormat, PredictorOptions
from data.labels.classes import Classes
from data.transforms import Resize, mean_colour
from inference.protocol import NO_LIMIT, OwnSize, Protocol, ShortSide
from utils import InputError

EXPORTED = (".onnx", ".pt2")  # what export.py writes
MAPS, LABELS = ("tensor(float)", 4), ("tensor(uint8)", 3)  # type and number of axes
SURE = 100.0  # logit of the class that a file names without saying how sure it is
CONFINED = (1, 24)  # the version of ONNX Runtime since which tensors lie in the file's folder
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


class OnnxModel(nn.Module):
    """An exported file as a model for inference/windows.py; its logits have the windows' size.

    It gets normalised windows, as every model does, and shows the file pixels of 0 to 255.

    Raises InputError for a file that is not like those of export.py.
    """

    output_stride = Fraction(1)

    def __init__(self, path: Path, device: torch.device):
        super().__init__()
        self.path = path
        self._session = _open_session(path, device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [node.shape for node in (*inputs, *outputs)]
        found = [(node.type, len(node.shape)) for node in (*inputs, *outputs)]
        self.gives_labels = found == [MAPS, LABELS]
        if len(inputs) != 1 or found not in ([MAPS, MAPS], [MAPS, LABELS]):
            raise InputError(
                f"{path}: expected pictures (batch, 3, height, width) float32 in, and logits of "
                f"that type or class ids uint8 out; make the file with {HOW_TO_EXPORT}"
            )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.classes, self.protocol = read_description(path, metadata)
        self._input = inputs[0].name
        self._one_by_one = shapes[0][0] == 1
        size = tuple(shapes[0][2:])
        self.size = size if all(type(side) is int for side in size) else None  # None: any
        # Not buffers: run_windows reads a model's number type and device from its parameters.
        expects = self.protocol.resize.input_format
        self.mean, self.std = (
            nn.Parameter(255 * torch.tensor(values)[:, None, None], requires_grad=False)
            for values in (expects.mean, expects.std)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised windows (B, 3, H, W) -> logits (B, K, H, W) float32."""
        if self.size not in (None, tuple(images.shape[-2:])):
            height, width = self.size
            raise InputError(
                f"{self.path} takes {width} x {height} pixels only; leave out --imgsz, --mode, "
                "--tile and --scales, or export it with --dynamic"
            )
        pixels = (images * self.std + self.mean).round().cpu()
        parts = pixels.split(1 if self._one_by_one else len(pixels))
        return torch.cat([self._logits(part.numpy()) for part in parts]).to(images.device)

    def _logits(self, pixels: np.ndarray) -> Tensor:
        try:
            (logits,) = self._session.run(None, {self._input: pixels})
            if self.gives_labels:
                of_class = SURE * np.eye(self.classes.num_classes, dtype=np.float32)
                logits = of_class[logits].transpose(0, 3, 1, 2)
        except Exception as error:
            if "allocate" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(str(error)) from error
            raise InputError(f"{self.path}: ONNX Runtime fails ({_reason(error)})") from error
        expected = (len(pixels), self.classes.num_classes, *pixels.shape[2:])
        if logits.shape != expected:
            raise InputError(f"{self.path}: logits {logits.shape}, expected {expected}")
        return torch.from_numpy(logits)


def load_onnx(path: Path, device: torch.device, options: PredictorOptions) -> OnnxModel:
    """The model of an exported file. Raises InputError for options that it does not take."""
    if path.suffix.lower() == ".pt2":
        raise InputError(
            f"{path}: reading a .pt2 file can run code in it; make an ONNX file with "
            f"{HOW_TO_EXPORT}"
        )
    given = {
        "--weights": options.weights,
        "--hub-repo": options.hub_repo,
        "--dtype": options.dtype != "float32",
        "--runtime openvino": options.runtime == "openvino",
        "--compile": options.compile,
    }
    if unwanted := ", ".join(name for name, value in given.items() if value):
        raise InputError(f"{path} is run by ONNX Runtime, as it is: leave out {unwanted}")
    model = OnnxModel(path, device)
    if model.gives_labels:
        if options.min_confidence:
            raise InputError(f"--min-confidence: {path} gives class ids without a confidence")
        print(f"{path} gives class ids alone: each counts as certain")
    return model


def _open_session(path: Path, device: torch.device):
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with {HOW_TO_EXPORT}")
    if find_spec("onnxruntime") is None:
        raise InputError(f"{path} needs ONNX Runtime: pip install onnxruntime")
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < CONFINED:
        raise InputError(
            f"{path} needs ONNX Runtime {CONFINED[0]}.{CONFINED[1]} or newer, here is "
            f"{onnxruntime.__version__}: pip install --upgrade onnxruntime"
        )
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError(
                f"{path}: this ONNX Runtime has no CUDA; pass --device cpu, or install "
                "onnxruntime-gpu in its place"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # errors are raised; the log would repeat them on stderr
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # of its own kinds
        raise InputError(f"{path}: ONNX Runtime cannot load it ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# -- metadata --------------------------------------------------------------------------------------


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
    except (KeyError, ValueError, RecursionError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else "is no JSON"
        raise InputError(f"{path}: its metadata {reason}; export it again") from error
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
    are_ratios = all(type(ratio) in (int, float) and 0 < ratio <= MAX_RATIO for ratio in ratios)
    if not 1 <= len(ratios) <= MAX_RATIOS or not are_ratios:
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


def _protocol(notes: dict) -> Protocol:
    expects = InputFormat(notes["patch_size"], tuple(notes["mean"]), tuple(notes["std"]))
    size, ratios, crop = tuple(notes["image_size"]), tuple(notes["ratios"]), None
    resize: Resize | ShortSide | OwnSize = Resize(size, notes["resize"] == "pad", expects)
    if notes["resize"] == "windows":
        crop, sides = size[0], (notes["short_side"], notes["long_side"])
        own_size = OwnSize(input_format=expects)
        resize = own_size if sides[0] is None else ShortSide(*sides, input_format=expects)
    return Protocol(resize, crop, notes["stride"], ratios, notes["flip"])
