"""Every choice as plain data, and the command lines that change them."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

IGNORE_INDEX = 255  # never trained on, never scored, drawn as no class
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WEIGHT_DECAY = 1e-4  # that of the published heads
TRAIN_SIZE = (448, 448)  # height, width in pixels
LR_DECAY = 0.1  # factor on the learning rate at each of --scheduler-epochs
OUTPUTS = Path("outputs")  # nothing is written anywhere else
INPUTS = Path("input")  # but for what --download brings
VALID_FRACTION = 0.15  # of the pairs, where there is no validation set

# -- models ----------------------------------------------------------------------------------------

THIS_REPO = str(Path(__file__).resolve().parent)
# Pinned, so that nobody's push changes what runs here.
DINOV2_REPO = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"

NON_COMMERCIAL = "CC-BY-NC-4.0"


@dataclass(frozen=True)
class Backbone:
    hub_repo: str  # where torch.hub finds it when --hub-repo does not say
    parameters: int
    licence: str


def _dinov2(parameters: int) -> Backbone:
    return Backbone(DINOV2_REPO, parameters, "Apache-2.0")


def _web_dino(parameters: int) -> Backbone:
    return Backbone(THIS_REPO, parameters, NON_COMMERCIAL)


BACKBONES = {
    "dinov2_vitt14": Backbone(THIS_REPO, 2_834_688, "MIT"),
    "dinov2_vits14": _dinov2(22_056_576),
    "dinov2_vitb14": _dinov2(86_580_480),
    "dinov2_vitl14": _dinov2(304_368_640),
    "dinov2_vitg14": _dinov2(1_136_480_768),
    "dinov2_vits14_reg": _dinov2(22_058_112),
    "dinov2_vitb14_reg": _dinov2(86_583_552),
    "dinov2_vitl14_reg": _dinov2(304_372_736),
    "dinov2_vitg14_reg": _dinov2(1_136_486_912),
    "webssl_dino300m_full2b_224": _web_dino(303_655_168),
    "webssl_dino1b_full2b_224": _web_dino(1_134_771_200),
    "webssl_dino1b_in1k_224": _web_dino(1_134_771_200),
    "webssl_dino2b_full2b_224": _web_dino(2_084_237_568),
    "webssl_dino2b_light2b_224": _web_dino(2_084_237_568),
    "webssl_dino2b_heavy2b_224": _web_dino(2_084_237_568),
    "webssl_dino2b_in1k_224": _web_dino(2_084_237_568),
    "webssl_dino3b_full2b_224": _web_dino(2_948_317_184),
    "webssl_dino3b_light2b_224": _web_dino(2_948_317_184),
    "webssl_dino3b_heavy2b_224": _web_dino(2_948_317_184),
    "webssl_dino3b_in1k_224": _web_dino(2_948_317_184),
    "webssl_dino5b_full2b_224": _web_dino(4_938_338_816),
    "webssl_dino7b_full8b_224": _web_dino(6_450_170_880),
    "webssl_dino7b_full8b_378": _web_dino(6_452_108_288),
    "webssl_dino7b_full8b_518": _web_dino(6_454_729_728),
}

# How many of the backbone's last blocks each head reads.
HEADS = {"ms": 4, "linear": 1, "token": 4, "conv": 1}


@dataclass(frozen=True)
class ModelConfig:
    """All that it takes to build a model again."""

    backbone: str
    head: str
    num_classes: int
    weights: str = "pretrained"  # of the backbone: "pretrained", "none" or a file
    hub_repo: str | None = None  # None: the backbone's own
    fine_tune: bool = False


# -- command lines: a flag that several scripts share is declared once -----------------------------

PICTURE_KINDS = ("overlay", "mask", "side-by-side", "confidence", "probabilities")
VIDEO_KINDS = ("overlay", "mask", "side-by-side", "csv")
AUGMENTS = ("articles", "scale")
LOSSES = ("ce", "ce+dice", "focal")
DTYPES = ("float32", "bfloat16", "float16")
DOWNLOADS = ("pennfudan", "voc2012")


class _ImageSize(argparse.Action):
    """`W H`, or one number for both, as (height, width)."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) > 2 or min(values) < 1:
            parser.error(f"{option_string} takes W H or one number, all positive, not {values}")
        setattr(namespace, self.dest, (values[-1], values[0]))


class _Scales(argparse.Action):
    """Several ratios as a tuple, or one whole number as it is."""

    def __call__(self, parser, namespace, values, option_string=None):
        count = len(values) == 1 and isinstance(values[0], int)
        setattr(namespace, self.dest, values[0] if count else tuple(map(float, values)))


def _scale(text: str) -> int | float:
    value = int(text) if text.isdigit() else float(text)
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not a ratio between 0 and 10")
    return value


def _positive_int(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _fraction(text: str) -> float:
    value = _share(text)
    if value in (0, 1):
        raise argparse.ArgumentTypeError(f"{text} leaves nothing to train or to validate on")
    return value


def _seconds(text: str) -> float:
    """Seconds, or hours, minutes and seconds with colons between them."""
    parts = text.split(":")
    value = sum(float(part) * 60**place for place, part in enumerate(reversed(parts)))
    if not 0 <= value < 1e6 or len(parts) > 3:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give 75.5 or 1:15.5")
    return value


def _some_seconds(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("a clip of no length has no frames")
    return value


def _strength(text: str) -> float:
    value = _share(text)
    if value == 1:
        raise argparse.ArgumentTypeError("1 would keep the first frame's classes for ever")
    return value


def _crf(text: str) -> int:
    if not text.isdigit() or int(text) > 51:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 51")
    return int(text)


class _Kinds(argparse.Action):
    """Some of the option's known kinds, joined by commas, as a tuple without doubles."""

    def __init__(self, *args, kinds: tuple[str, ...], **kwargs):
        super().__init__(*args, **kwargs)
        self.kinds = kinds

    def __call__(self, parser, namespace, values, option_string=None):
        chosen = tuple(dict.fromkeys(values.split(",")))
        if not set(chosen) <= set(self.kinds):
            parser.error(f"{option_string} {values}: expected some of {','.join(self.kinds)}")
        setattr(namespace, self.dest, chosen)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except those that say nothing."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter)


def _add_image_size(group, default: tuple[int, int] | None, note: str = "") -> None:
    group.add_argument(
        "--imgsz",
        nargs="+",
        type=int,
        action=_ImageSize,
        default=default,
        metavar=("W", "H"),
        help=f"size in pixels that pictures are resized to, width height or one number{note}",
    )


def _add_backbone_source(group, weights: str | None, note: str = "") -> None:
    group.add_argument(
        "--hub-repo",
        metavar="DIR",
        help="folder with a hubconf.py (a clone of DINOv2, or . for this repository), or a GitHub "
        "owner/name:ref; default: official DINOv2 at a pinned commit, this repository for others",
    )
    group.add_argument(
        "--weights",
        default=weights,
        help=f"of the backbone: pretrained, none (random) or a file{note}",
    )


def _add_model_flags(
    parser: argparse.ArgumentParser, weights: str | None, weights_note: str = ""
) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--backbone", default="dinov2_vits14", help="see the README's table")
    _add_backbone_source(group, weights, weights_note)
    group.add_argument(
        "--head",
        default="ms",
        choices=HEADS,
        help="ms: BatchNorm and 1x1 convolution on the last four blocks; linear: the same on the "
        "last; token: 1x1 convolution on four; conv: 3x3, ReLU, 1x1 on the last",
    )


def model_parser() -> argparse.ArgumentParser:
    parser = _parser("Print the layers, parameters and output shape of a model.")
    _add_model_flags(parser, weights="none")
    parser.add_argument("--num-classes", type=_positive_int, default=21, help="classes")
    _add_image_size(parser, (640, 640))
    return parser


def train_parser() -> argparse.ArgumentParser:
    parser = _parser("Train a segmentation head on a DINOv2 backbone.")
    _add_data_flags(parser)
    _add_model_flags(parser, None, "; default: pretrained")
    parser.add_argument(
        "--fine-tune", action="store_true", help="train the backbone too, not the head alone"
    )
    parser.add_argument(
        "--init-head",
        metavar="NAME",
        help="begin from a published head: rows of classes of the same name are taken over",
    )
    recipe = parser.add_argument_group("recipe")
    _add_image_size(recipe, None, "; default: 448 448")
    _add_augmentation(recipe)
    recipe.add_argument("--batch", type=_positive_int, default=8, help="pictures per step")
    recipe.add_argument("--epochs", type=_positive_int, default=20, help="passes over the data")
    recipe.add_argument("--lr", type=float, default=1e-3, help="learning rate of AdamW")
    recipe.add_argument(
        "--scheduler", action="store_true", help="multiply the rate by 0.1 at --scheduler-epochs"
    )
    recipe.add_argument(
        "--scheduler-epochs", type=_positive_int, nargs="+", default=[30], help="when, in epochs"
    )
    recipe.add_argument(
        "--loss",
        default="ce",
        choices=LOSSES,
        help="ce: cross-entropy; ce+dice: plus Dice loss, for small classes; focal: cross-entropy "
        "that passes over what is already right",
    )
    recipe.add_argument(
        "--class-weights",
        default="none",
        choices=("none", "auto"),
        help="auto: weigh classes in the loss by 1 / sqrt(share of the training pixels)",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--out-dir", default="", metavar="NAME", help="folder below outputs/")
    run.add_argument(
        "--resume", action="store_true", help="continue from last.pth in the output folder"
    )
    _add_device(run)
    run.add_argument("--amp", action="store_true", help="compute in bfloat16 where it is safe")
    _add_workers(run)
    _add_seed(run)
    test = parser.add_argument_group("test")
    test.add_argument(
        "--test-only",
        action="store_true",
        help="score --model on the validation pairs, write results.csv and the confusion matrix",
    )
    _add_used_model(test)
    return parser


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data (layouts: input/README.md)")
    data.add_argument("--data", type=Path, default=Path("input/PennFudanPed"), help="folder")
    for name in ("train-images", "train-masks", "valid-images", "valid-masks"):
        data.add_argument(
            f"--{name}", type=Path, metavar="DIR", help="folder, in place of --data's"
        )
    data.add_argument(
        "--classes",
        metavar="FILE",
        help="class file (input/README.md) or person, voc2012, ade20k, cityscapes; default: the "
        "class file in --data, else what layout and masks tell",
    )
    data.add_argument(
        "--valid-fraction",
        type=_fraction,
        metavar="SHARE",
        help="share of the pairs, between 0 and 1, to validate on where there is no validation "
        f"set; default: {VALID_FRACTION}, for Penn-Fudan the articles' 24 of 170",
    )


def _add_augmentation(group) -> None:
    group.add_argument(
        "--augment",
        default="articles",
        choices=AUGMENTS,
        help="articles: flip, brightness and contrast, rotation; scale: the published heads' "
        "random scale, crop, flip and colours, proportions kept",
    )
    group.add_argument(
        "--keep-ratio",
        action="store_true",
        help="keep pictures' proportions and pad to --imgsz, in training, validation and "
        "inference, instead of stretching them",
    )


def dataset_parser() -> argparse.ArgumentParser:
    parser = _parser("Check a data set and report on it in outputs/dataset_report.")
    _add_data_flags(parser)
    parser.add_argument(
        "--download", choices=DOWNLOADS, help="fetch this data set into input/ first, and take it"
    )
    view = parser.add_argument_group("what the network will see")
    view.add_argument(
        "--show-augment",
        action="store_true",
        help="also draw outputs/dataset_report/augment.png, pictures as training will see them",
    )
    _add_image_size(view, None, "; default: 448 448")
    _add_augmentation(view)
    _add_seed(view)
    return parser


def _add_seed(group) -> None:
    group.add_argument("--seed", type=int, default=42, help="of order, augmentation and head")


def _add_device(group) -> None:
    group.add_argument("--device", default="auto", help="auto (cuda, else mps, else cpu) or a name")


def _add_workers(group) -> None:
    group.add_argument(
        "--workers",
        type=int,
        default=max(0, min(8, (os.cpu_count() or 1) - 1)),
        help="processes that prepare pictures; 0: none besides the training loop",
    )


def demo_parser() -> argparse.ArgumentParser:
    parser = _parser("Draw the demo's data set and video into input/demo.")
    parser.add_argument(
        "--pretrain",
        action="store_true",
        help="make the weights of dinov2_vitt14 again instead (about an hour on two cores)",
    )
    _add_device(parser)
    _add_workers(parser)
    return parser


def _add_used_model(group) -> None:
    """Which trained model, and how pictures are shown to it."""
    group.add_argument(
        "--model",
        default=str(OUTPUTS / "best_model_iou.pth"),
        help="a trained checkpoint, or a published model by name or file (see --list-models)",
    )
    group.add_argument(
        "--list-models", action="store_true", help="print the published models and exit"
    )
    group.add_argument(
        "--mode",
        choices=("whole", "slide"),
        help="show the picture at once, or in overlapping windows; default: as the model was made",
    )
    group.add_argument(
        "--scales",
        nargs="+",
        type=_scale,
        action=_Scales,
        metavar="RATIO",
        help="ratios of the size to average over, or one whole number for the first so many of "
        "1 1.32 1.73 2.28 3; default: as the model was made",
    )
    group.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored picture too; default: as the model was made",
    )
    group.add_argument(
        "--dtype",
        default="float32",
        choices=DTYPES,
        help="number type that the model computes in; the 16-bit ones halve its memory",
    )


def _infer_parser(description: str, out_dir: str, batch: int) -> argparse.ArgumentParser:
    parser = _parser(description)
    model = parser.add_argument_group("model")
    _add_used_model(model)
    _add_backbone_source(model, None, "; default: what the model was trained on")
    _add_image_size(model, None, "; default: the training size, or the published head's")
    parser.add_argument("--out-dir", default=out_dir, metavar="NAME", help="folder below outputs/")
    parser.add_argument("--batch", type=_positive_int, default=batch, help="pictures at a time")
    parser.add_argument(
        "--alpha",
        type=_share,
        default=0.5,
        help="share of the colour in overlays, 0..1; 0 leaves the contours",
    )
    parser.add_argument(
        "--min-confidence",
        type=_share,
        default=0.0,
        metavar="P",
        help="pixels whose class is less probable, 0..1, are drawn and saved as ignored",
    )
    _add_device(parser)
    return parser


def infer_image_parser() -> argparse.ArgumentParser:
    parser = _infer_parser("Segment pictures.", "inference_results_image", batch=1)
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="pictures: folders (with what lies below them), files or patterns like 'photos/*.jpg'",
    )
    parser.add_argument(
        "--save",
        action=_Kinds,
        kinds=PICTURE_KINDS,
        default=("overlay",),
        metavar="KINDS",
        help="of overlay (JPEG with legend), mask (palette PNG of class ids), side-by-side (JPEG), "
        "confidence (8-bit PNG, 255 is certain), probabilities (npz of float16), joined by commas",
    )
    parser.add_argument(
        "--sort-by-confidence",
        action="store_true",
        help="put the least confident pictures first in results.csv and the contact sheet",
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out pictures that an earlier run into this folder has done",
    )
    return parser


def infer_video_parser() -> argparse.ArgumentParser:
    parser = _infer_parser("Segment a video.", "inference_results_video", batch=4)
    parser.add_argument("--input", help="a video file, a webcam's number or an rtsp/http address")
    clip = parser.add_argument_group("what of the video")
    clip.add_argument("--start", type=_seconds, default=0.0, help="seconds or h:m:s to leave out")
    clip.add_argument(
        "--duration", type=_some_seconds, help="seconds or h:m:s to take; default: to the end"
    )
    clip.add_argument(
        "--every",
        type=_positive_int,
        default=1,
        metavar="N",
        help="segment every Nth frame and hold its classes until the next",
    )
    clip.add_argument(
        "--smooth",
        type=_strength,
        default=0.0,
        metavar="S",
        help="against flicker: probabilities are S, 0..1, of their mean so far and the rest of the "
        "new frame's, from one scene cut to the next",
    )
    kept = parser.add_argument_group("what is kept")
    kept.add_argument(
        "--save",
        action=_Kinds,
        kinds=VIDEO_KINDS,
        default=("overlay",),
        metavar="KINDS",
        help="of overlay, mask (class colours), side-by-side (all MP4), csv (each class's share of "
        "each frame), joined by commas",
    )
    kept.add_argument(
        "--crf", type=_crf, default=18, help="quality of the film, 0 (lossless) to 51 (worst)"
    )
    kept.add_argument("--codec", default="libx264", help="FFmpeg's name of the encoder")
    kept.add_argument("--show", action="store_true", help="show the frames in a window too")
    return parser


def predictor_options(args: argparse.Namespace) -> dict:
    """What predictor.load_predictor takes besides the model and the device."""
    return {
        "weights": args.weights,
        "hub_repo": args.hub_repo,
        "batch_size": args.batch,
        "image_size": args.imgsz,
        "mode": args.mode,
        "scales": args.scales,
        "flip": args.flip,
        "dtype": args.dtype,
    }
