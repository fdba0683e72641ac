"""An exported ONNX file in place of a checkpoint, run by ONNX Runtime.

ONNX Runtime is an optional dependency: `pip install onnxruntime`. The file is not trusted: its
metadata, inputs and outputs are checked, and ONNX Runtime reads no tensors from other folders.
"""

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from config import PredictorOptions
from inference.onnx_metadata import HOW_TO_EXPORT, read_description
from utils import InputError

EXPORTED = (".onnx", ".pt2")  # what export.py writes
MAPS, LABELS = ("tensor(float)", 4), ("tensor(uint8)", 3)  # type and number of axes
SURE = 100.0  # logit of the class that a file names without saying how sure it is
CONFINED = (1, 24)  # the version of ONNX Runtime since which tensors lie in the file's folder


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
