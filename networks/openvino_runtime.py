"""A frozen backbone run by OpenVINO on a CPU, compared with torch before it is trusted.

OpenVINO is an optional dependency: `pip install openvino`.
"""

import logging
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from networks.tracing import traceable_positions
from utils import InputError

KEPT_SIZES = 4  # compiled models; each holds a copy of the weights
# Images of one size after which compiling for them has been worth its time, by the figures in
# docs/benchmarks.md.
WORTH_COMPILING = 32
# Largest distance from torch's features, as a share of their norm.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}

Infer = Callable[[np.ndarray], np.ndarray]  # one image (1, 3, H, W) -> maps (1, L*D, h, w)


def is_installed() -> bool:
    return find_spec("openvino") is not None


def pays() -> bool:
    """Whether OpenVINO is installed, and faster than torch on this kind of CPU.

    It was measured to be so on CPUs with AVX-512, and not on those with AVX2 alone.
    """
    return is_installed() and torch.backends.cpu.get_cpu_capability() == "AVX512"


class OpenVinoBackbone:
    """Calls like the backbone: images (B, 3, H, W) float32 to a tuple of one map (B, L*D, h, w).

    It compiles one model for each input size (H, W), and compares it with torch.

    Args:
        backbone: frozen, on the CPU, in float32. Its forward gives a tuple of L maps (B, D, h, w).
        dtype: float32, or bfloat16 for faster and coarser arithmetic.
        after: images of a size that torch computes before a model is compiled for that
            size; where that fails, torch goes on, and a line says so. None: from the first on, or
            an error.

    Attributes:
        compile_seconds: spent on compiling and comparing.

    Raises InputError where OpenVINO is missing or cannot convert the backbone, or where its
    features are not torch's.
    """

    def __init__(
        self, backbone: nn.Module, dtype: torch.dtype = torch.float32, after: int | None = None
    ):
        if not is_installed():
            raise InputError("--runtime openvino needs OpenVINO: pip install openvino")
        if dtype not in PRECISIONS:
            raise InputError(f"--runtime openvino computes in float32 or bfloat16, not {dtype}")
        self.backbone = backbone
        self.dtype = dtype
        self.compile_seconds = 0.0
        self._is_optional = after is not None
        self._after: float = after or 0
        self._seen: Counter[tuple[int, int]] = Counter()
        self._compiled = lru_cache(KEPT_SIZES)(self._compile)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        size = tuple(images.shape[-2:])
        if self._seen[size] >= self._after:
            try:
                infer = self._compiled(size)
                features = [torch.from_numpy(infer(image[None].numpy())) for image in images]
                return (torch.cat(features),)
            except InputError as error:
                if not self._is_optional:
                    raise
                print(f"going on in torch: {error}", file=sys.stderr)
                self._after = math.inf
        self._seen[size] += len(images)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return tuple(maps.float() for maps in self.backbone(images))

    def _compile(self, size: tuple[int, int]) -> Infer:
        started = time.perf_counter()
        infer = compile_backbone(self.backbone, size, self.dtype)
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        expected = torch.cat(self.backbone(image), dim=1)
        found = torch.from_numpy(infer(image.numpy()))
        distance = ((found - expected).norm() / expected.norm()).item()
        if not distance <= TOLERANCES[self.dtype]:  # NaN too
            raise InputError(
                f"--runtime openvino gives other features than torch (distance {distance:.1e}, "
                f"at most {TOLERANCES[self.dtype]:.0e} is accepted); use --runtime torch"
            )
        self.compile_seconds += time.perf_counter() - started
        return infer


class _Maps(nn.Module):
    """The backbone's maps in one tensor, as the exporter wants it."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.backbone(images), dim=1)


def compile_backbone(backbone: nn.Module, size: tuple[int, int], dtype: torch.dtype) -> Infer:
    """The backbone for one image of `size` (H, W), compiled for this CPU."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    try:
        with traceable_positions(backbone, size), quiet():
            program = torch.export.export(_Maps(backbone).eval(), (torch.zeros(1, 3, *size),))
            # The frontend itself, not convert_model, which reports its use over the network.
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchFXPythonDecoder.from_exported_program(program)
            model = frontend.convert(frontend.load(decoder))
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except Exception as error:  # of many kinds, by what the converter does not know
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--runtime openvino cannot convert this backbone ({reason}); use --runtime torch"
        ) from error
    request = compiled.create_infer_request()
    return lambda image: np.array(request.infer([image], share_inputs=True)[compiled.output(0)])


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings and log lines, the converters' notes about themselves, are not shown."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
