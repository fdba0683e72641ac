"""The Python API: load a trained or published model, predict class ids and probabilities."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import config
from common.checkpoints import Checkpoint, check_weights, short
from common.memory import out_of_memory
from config import PredictorOptions
from data.labels.classes import Classes
from data.numbers import ValueRange
from data.transforms import Resize
from inference import published_mask2former as published
from inference.onnx_model import EXPORTED, load_onnx
from inference.protocol import OwnSize, Protocol
from inference.published_heads import OfficialHead, find_head, list_heads, load_head_weights
from inference.published_mask2former import check_m2f_options, is_m2f, load_m2f
from inference.refinement import refined_strips
from inference.windows import Prediction, View, ViewLogits, WindowsDoNotFit, row_strips, run_windows
from model import HEADS, SegmentationModel, build_model
from networks.backbones import check_compiler, trusted_source
from networks.openvino_runtime import WORTH_COMPILING
from networks.resampling import to_labels
from networks.weights import fingerprint
from utils import InputError, select_dtype

SMALLEST_WINDOW = 112  # pixels; smaller windows would show the model too little of the picture
KEPT = Prediction._fields[1:]  # what predict gives if it is asked for it


@contextmanager
def usual_torch_state() -> Iterator[None]:
    """In the with-block torch computes as it does by itself, whatever the caller has set.

    That is autocast, the default type and the default device.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


@dataclass
class Predictor:
    """A model with its classes and protocol; `predict` segments pictures of any size.

    batch_size, min_confidence, refine: see PredictorOptions.
    """

    model: nn.Module  # windows (B, 3, H, W) to logits on a grid, see inference/windows.py
    classes: Classes
    protocol: Protocol
    device: torch.device
    batch_size: int = 1
    min_confidence: float = 0.0
    paper_miou: float | None = None  # percent, as published with the model
    value_range: ValueRange | None = None  # of the training pictures, if of more than 8 bits
    refine: bool = False

    def predict(self, images: Iterable[np.ndarray], keep: Collection[str] = ()) -> list[Prediction]:
        """Segment RGB pictures (H, W, 3) uint8. keep: "confidence", "probabilities" or both.

        Out of memory: halves the batch, then the windows, for this and all further calls, and says
        so on stderr. Raises InputError if that is not enough, or for other arrays.
        """
        images, keep = list(images), {keep} if isinstance(keep, str) else set(keep)
        _check(images, keep)
        with out_of_memory("pass a smaller --imgsz, or segment smaller pictures"):
            while True:
                try:
                    return self._predict(images, keep)
                except WindowsDoNotFit as error:
                    count, side = error.args
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self._use_less_memory(count, side)

    @property
    def compile_seconds(self) -> float:
        """Spent so far on compiling the model for OpenVINO."""
        return getattr(self.model, "compile_seconds", 0.0)

    def _use_less_memory(self, count: int, side: int) -> None:
        """Halve the batch of `count` windows, or else the window, whose longer side is `side`."""
        if count > 1:
            self.batch_size = count // 2
            change = f"{count} windows at a time do not fit, going on with {self.batch_size}"
        elif side >= 2 * SMALLEST_WINDOW:
            self.protocol = self.protocol.with_windows(side // 2)
            change = (
                f"a window of {side} pixels does not fit, going on with windows of {side // 2} "
                "pixels, which changes the results a little"
            )
        else:
            raise InputError(
                f"out of memory even with one window of {side} pixels; pass --dtype bfloat16, "
                "--device cpu, or a smaller backbone's model"
            )
        print(f"out of memory: {change}", file=sys.stderr, flush=True)

    @torch.inference_mode()
    @usual_torch_state()
    def _predict(self, images: Sequence[np.ndarray], keep: Collection[str]) -> list[Prediction]:
        passes = self.protocol.passes()
        views = [View(image, *one, self.protocol) for image in images for one in passes]
        logits = run_windows(self.model, views, self.device, self.batch_size)
        count = len(passes)
        return [
            self._merged(logits[i * count : (i + 1) * count], image, keep)
            for i, image in enumerate(images)
        ]

    def _merged(
        self, view_logits: Sequence[ViewLogits], image: np.ndarray, keep: Collection[str]
    ) -> Prediction:
        """The prediction of one picture from the logits of all its views."""
        size = view_logits[0].size
        with_confidence = "confidence" in keep or self.min_confidence > 0
        labels = np.empty(size, np.uint8)
        confidence = np.empty(size, np.float32) if with_confidence else None
        shape = (self.classes.num_classes, *size)
        probabilities = np.empty(shape, np.float16) if "probabilities" in keep else None
        as_probabilities = with_confidence or probabilities is not None
        if self.refine:
            parts = refined_strips(view_logits, image)
        else:
            parts = row_strips(view_logits, as_probabilities)
        for rows, scores in parts:
            labels[rows] = to_labels(scores[None])[0].cpu().numpy()
            if confidence is not None:
                confidence[rows] = scores.amax(dim=0).cpu().numpy()
                labels[rows][confidence[rows] < self.min_confidence] = config.IGNORE_INDEX
            if probabilities is not None:
                probabilities[:, rows] = scores.half().cpu().numpy()  # numpy's own cast is slow
        return Prediction(labels, confidence, probabilities)


def _check(images: Sequence[np.ndarray], keep: Collection[str]) -> None:
    """Raise InputError unless these are pictures and kinds of result that predict knows."""
    if unknown := sorted(keep - set(KEPT)):
        raise InputError(f"predict: keep={unknown[0]!r} is unknown; known: {', '.join(KEPT)}")
    for number, image in enumerate(images):
        is_array = isinstance(image, np.ndarray)
        if not is_array or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            found = f"{image.dtype} {image.shape}" if is_array else f"a {type(image).__name__}"
            raise InputError(
                f"predict: picture {number} is {found}, expected a list of RGB (H, W, 3) uint8, "
                "0 to 255; convert each, as (255 * image).astype(np.uint8) does for 0 to 1"
            )


@usual_torch_state()
def load_predictor(
    model: str | Path, device: torch.device, options: PredictorOptions | None = None
) -> Predictor:
    """The predictor of a checkpoint or ONNX file of this project, or of a published model."""
    options = options or PredictorOptions()
    _check_options(options)
    dtype = select_dtype(options.dtype, device)
    if Path(model).suffix.lower() in EXPORTED:
        module = load_onnx(Path(model), device, options)
        loaded = Predictor(module, module.classes, module.protocol, device)
    elif is_m2f(str(model)):
        check_m2f_options(model, options)
        module, classes, protocol, miou = load_m2f(str(model), device, dtype)
        loaded = Predictor(module, classes, protocol, device, paper_miou=miou)
    elif official := find_head(str(model)):
        loaded = _load_official(*official, device, options)
    else:
        loaded = _load_checkpoint(Path(model), device, options)
    module = loaded.model
    protocol = loaded.protocol.overridden(
        options.image_size, options.mode, options.ratios, options.flip
    )
    if options.tile:
        protocol = protocol.tiled(options.tile, options.tile_overlap)
    if isinstance(module, SegmentationModel):
        if module.to(device).use_runtime(options.runtime, dtype, WORTH_COMPILING):
            dtype = torch.float32  # of the head
    elif options.runtime == "openvino":
        raise InputError(f"--runtime openvino: {model} runs in torch only; leave the flag out")
    if options.compile:
        check_compiler(device)
        module.backbone.compile()
    return replace(
        loaded,
        model=module.to(device, dtype).eval().requires_grad_(False),
        protocol=protocol,
        batch_size=options.batch_size,
        min_confidence=options.min_confidence,
        refine=options.refine,
    )


def _check_options(options: PredictorOptions) -> None:
    """Raise InputError for options that contradict each other."""
    if options.tile and (options.image_size or options.mode):
        raise InputError("--tile shows the picture's own resolution: leave out --imgsz and --mode")
    if options.tile_overlap is not None and not options.tile:
        raise InputError("--tile-overlap needs --tile")
    if options.compile and options.runtime == "openvino":
        raise InputError("--compile does nothing with --runtime openvino: leave out one of them")


def _load_official(
    head: OfficialHead, path: Path | None, device: torch.device, options: PredictorOptions
) -> Predictor:
    state_dict = load_head_weights(head, path)
    spec = config.ModelConfig(
        head.backbone, head.kind, head.classes.num_classes, options.weights or "pretrained",
        options.hub_repo or config.THIS_REPO,
    )  # fmt: skip
    model = build_model(spec)
    model.head.load_state_dict(state_dict, strict=True)
    return Predictor(model, head.classes, head.protocol, device, paper_miou=head.paper_miou)


def _load_checkpoint(path: Path, device: torch.device, options: PredictorOptions) -> Predictor:
    checkpoint = Checkpoint.load(path)
    palette = tuple(tuple(colour) for colour in checkpoint.palette)
    classes = Classes(tuple(checkpoint.classes), palette)
    resize = Resize(tuple(checkpoint.image_size), checkpoint.keep_ratio, checkpoint.input_format)
    protocol = Protocol(resize)
    if checkpoint.tiled:
        own_size = OwnSize(input_format=resize.input_format)
        protocol = Protocol(own_size).with_windows(min(resize.image_size))
    limits = ValueRange(*checkpoint.value_range) if checkpoint.value_range else None
    model = _restore(checkpoint, path, options)
    return Predictor(model, classes, protocol, device, value_range=limits)


def _restore(checkpoint: Checkpoint, path: Path, options: PredictorOptions) -> SegmentationModel:
    """The model of a checkpoint."""
    name, head = checkpoint.backbone, checkpoint.head
    if head not in HEADS:
        raise InputError(f"{path}: unknown head {short(head)}; known: {', '.join(HEADS)}")
    hub_repo = options.hub_repo or trusted_source(path, name, checkpoint.hub_repo)
    weights = options.weights or checkpoint.weights
    if options.weights and checkpoint.fine_tune:
        raise InputError(f"{path} holds its fine-tuned backbone: leave out --weights")
    if checkpoint.fine_tune:  # the checkpoint holds the backbone's weights itself
        weights = "none"
    elif weights not in ("pretrained", "none") and not os.path.isfile(weights):
        if options.weights:
            raise InputError(f"--weights {weights}: no such file")
        raise InputError(
            f"{path} was trained on the backbone weights {weights}, which are not here; "
            "pass --weights FILE"
        )
    spec = config.ModelConfig(
        name, head, len(checkpoint.classes), weights, hub_repo, checkpoint.fine_tune
    )
    model = build_model(spec)
    if model.input_format.patch_size != checkpoint.patch_size:
        raise InputError(
            f"{path} was trained with patches of {checkpoint.patch_size} pixels, {name} has "
            f"{model.input_format.patch_size}; pass the --hub-repo that it was trained with"
        )
    if not spec.fine_tune and fingerprint(model.backbone) != checkpoint.fingerprint:
        raise InputError(
            f"{path} was trained on other backbone weights than {weights} gives; pass the right "
            f"--weights FILE{', or --hub-repo' if checkpoint.hub_repo else ''}"
        )
    check_weights(path, checkpoint.model_state_dict, model.trained())
    model.load_trained(checkpoint.model_state_dict)
    return model


def list_models() -> str:
    """One line per published model: name, classes, size, licence, the paper's score."""
    title = "published with backbone, Mask2Former (Apache-2.0, by Meta):"
    return "\n".join([list_heads(), title, published.summary()])
