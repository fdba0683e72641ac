"""Groups of flags that several scripts share."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from common.parser import ImageSize, number, positive_int
from config import (
    DTYPES,
    MAX_IMAGE_SIDE,
    OUTPUTS,
    RUNTIMES,
    SCHEDULES,
    SPLIT_WORDS,
    VALID_FRACTION,
    WEIGHT_DECAY,
    PredictorOptions,
)

NEEDED_BY = {  # flags of train.py that do nothing without another one
    "--fine-tune": (
        "--backbone-lr", "--layer-decay", "--unfreeze-blocks", "--checkpoint-activations",
    ),
    "--test-only": (
        "--split", "--model", "--mode", "--tile", "--tile-overlap", "--scales", "--refine",
        "--flip", "--dtype",
    ),
}  # fmt: skip
OF_TRAINING = (  # flags of train.py that do nothing with --test-only
    "--backbone", "--head", "--init-head", "--fine-tune", "--augment", "--keep-ratio",
    "--grad-accum", "--epochs", "--watch", "--patience", "--lr", "--warmup", "--scheduler",
    "--schedule", "--weight-decay", "--clip-grad", "--loss", "--class-weights", "--cache-features",
    "--resume", "--save-every", "--amp", "--deterministic", "--tensorboard",
)  # fmt: skip


# fmt: off
def add_data_flags(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data (layouts: input/README.md)")
    data.add_argument("--data", type=Path,
        help="folder of the data set; default: input/PennFudanPed")
    for name in ("train", "valid", "test"):
        for kind in ("images", "masks"):
            several = name == "train"
            data.add_argument(f"--{name}-{kind}", type=Path, metavar="DIR",
                nargs="+" if several else None, help="folder to use in place of --data's"
                + ("; more of them, or one again, add pairs to train on alone" if several else ""))
    data.add_argument("--classes", metavar="FILE",
        help="class file (input/README.md) or person, voc2012, ade20k, cityscapes; default: the "
        "class file in --data, else what layout and masks tell")
    data.add_argument("--valid-fraction", type=number(above=0, below=1), metavar="FRACTION",
        help="fraction of the pairs to validate on where there is no validation set; default: "
        f"{VALID_FRACTION}, for Penn-Fudan the articles' 24 of 170")
    data.add_argument("--allow-unmatched", action="store_true",
        help="leave out pictures without a mask and masks without a picture, and say how many")


def add_backbone_source(group, weights: str | None, note: str = "") -> None:
    group.add_argument("--hub-repo", metavar="DIR",
        help="folder with a hubconf.py (a clone of DINOv2 or DINOv3, your own, or . for this "
        "repository), or a GitHub owner/name:ref; default: the source that `python model.py "
        "--list-backbones` names")
    group.add_argument("--weights", default=weights,
        help=f"weights of the backbone: pretrained, none (random) or a file{note}")


def add_model_flags(
    parser: argparse.ArgumentParser, heads: Iterable[str], weights: str | None, note: str = ""
) -> None:
    """heads: the names to choose from. weights: the default; note: what the help says of it."""
    group = parser.add_argument_group("model")
    group.add_argument("--backbone", default="dinov2_vits14",
        help="name from `python model.py --list-backbones`, timm/NAME, or an entry of --hub-repo")
    add_backbone_source(group, weights, note)
    group.add_argument("--head", default="ms", choices=tuple(heads),
        help="ms: BatchNorm and 1x1 convolution on the last four blocks; linear: the same on the "
        "last; token: 1x1 convolution on four; conv: 3x3, ReLU, 1x1 on the last; sharp and mask: "
        "convolutions and upscaling on four, mask with class queries; spread: sharp on blocks "
        "spread over the depth (docs/heads.md)")


def add_used_model(group) -> None:
    """Which trained model to use, and how pictures are shown to it."""
    group.add_argument("--model", default=str(OUTPUTS / "best_model_iou.pth"),
        help="a trained checkpoint, an ONNX file of export.py, or a published model by name or "
        "file (see --list-models)")
    group.add_argument("--mode", choices=("whole", "slide"),
        help="show the whole picture at once, or overlapping windows; default: as the model was "
        "trained")
    group.add_argument("--tile", type=positive_int, metavar="N",
        help="show windows of N x N pixels at the picture's own resolution, for large pictures; "
        "default: off, pictures are resized")
    group.add_argument("--tile-overlap", type=number(0, whole=True), metavar="PIXELS",
        help="pixels that neighbouring windows of --tile share; default: a quarter of N")
    group.add_argument("--scales", nargs="+", type=number(above=0, high=10), metavar="RATIO",
        help="average the predictions at these multiples of the size, 1 1.32 1.73 say; default: "
        "as the model was published, else 1")
    group.add_argument("--refine", action="store_true",
        help="sharpen the probabilities along the edges of the picture by a guided filter")
    group.add_argument("--flip", action=argparse.BooleanOptionalAction,
        help="average with the prediction of the mirrored picture; default: as the model was "
        "published, else no")
    group.add_argument("--dtype", default="float32", choices=DTYPES,
        help="number type that the model computes in; the 16-bit ones halve its memory; on a CPU "
        "without their arithmetic: float32")


def add_image_size(group, default: tuple[int, int] | None, note: str = "") -> None:
    group.add_argument("--imgsz", nargs="+", type=number(1, MAX_IMAGE_SIDE, whole=True),
        action=ImageSize, default=default, metavar=("W", "H"),
        help=f"size in pixels that pictures are resized to: width height, or one number{note}")


def add_augmentation(group, names: Iterable[str]) -> None:
    group.add_argument("--augment", default="articles", choices=tuple(names),
        help="articles: flip, brightness and contrast, rotation; scale: random scale, crop, flip "
        "and colours as for the published heads, proportions kept; crop: random crop at the "
        "picture's own resolution, flip and colours, for large pictures; flip: flip only; none: no "
        "augmentation")
    group.add_argument("--keep-ratio", action="store_true",
        help="keep the proportions of pictures and pad them to --imgsz instead of stretching "
        "them, in training, validation and inference")


SHARED = {
    "--seed": {"type": number(0, 2**32 - 1, whole=True), "default": 42,
        "help": "seed for shuffling, augmentation and head initialisation"},
    "--device": {"default": "auto",
        "help": "auto (cuda, else mps, else cpu), a name, or the number of a CUDA device"},
    "--runtime": {"default": "torch", "choices": RUNTIMES,
        "help": "what runs a frozen backbone: torch; openvino, if installed, on a CPU; auto: "
        "openvino on a CPU with AVX-512, where it is faster, once enough pictures have been seen "
        "to be worth its time to compile"},
    "--compile": {"action": "store_true", "help": "compile the backbone with torch.compile"},
    "--workers": {"type": number(0, 1024, whole=True), "default": min(8, (os.cpu_count() or 1) - 1),
        "help": "processes that load pictures; 0: load them in the main process"},
    "--no-page": {"action": "store_true",
        "help": "do not write index.html, the page to look at the results in a browser"},
}


def add_shared(group, *flags: str) -> None:
    """Add some flags of SHARED."""
    for flag in flags:
        group.add_argument(flag, **SHARED[flag])


def add_inference_flags(parser: argparse.ArgumentParser, out_dir: str, batch: int) -> None:
    """The flags that infer_image.py and infer_video.py share."""
    model = parser.add_argument_group("model")
    add_used_model(model)
    model.add_argument("--list-models", action="store_true",
        help="print the published models and exit")
    add_backbone_source(model, None, "; default: what the model was trained on")
    add_image_size(model, None, "; default: the training size, or the published head's")
    parser.add_argument("--out-dir", default=out_dir, metavar="NAME", help="folder below outputs/")
    parser.add_argument("--batch", type=positive_int, default=batch, help="pictures at a time")
    parser.add_argument("--alpha", type=number(0, 1), default=0.5,
        help="opacity of the colours in overlays, 0 to 1; 0 draws the contours alone")
    parser.add_argument("--min-confidence", type=number(0, 1), default=0.0, metavar="P",
        help="pixels whose class has a lower probability, 0 to 1, are drawn and saved as ignored")
    add_shared(parser, "--no-page", "--device", "--runtime", "--compile")


def predictor_options(args: argparse.Namespace) -> PredictorOptions:
    """What the flags of add_used_model, add_backbone_source and the like say."""
    return PredictorOptions(
        weights=args.weights, hub_repo=args.hub_repo, image_size=args.imgsz, mode=args.mode,
        ratios=args.scales and tuple(args.scales), flip=args.flip,
        tile=args.tile, tile_overlap=args.tile_overlap, batch_size=args.batch,
        min_confidence=getattr(args, "min_confidence", 0.0),  # not a flag of train.py
        dtype=args.dtype, runtime=args.runtime, compile=args.compile, refine=args.refine,
    )


# -- training ------------------------------------------------------------------------------------


def add_trained_part(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is trained")
    group.add_argument("--init-head", metavar="NAME",
        help="start from a published head: takes over the rows of classes of the same name")
    group.add_argument("--fine-tune", action="store_true",
        help="train the backbone too, not the head alone")
    group.add_argument("--backbone-lr", type=number(above=0), metavar="LR",
        help="learning rate of the backbone's last block; default: a tenth of --lr")
    group.add_argument("--layer-decay", type=number(above=0), metavar="FACTOR",
        help="learning rate of a block relative to the next block's, 0.9 say; default: 1")
    group.add_argument("--unfreeze-blocks", type=positive_int, metavar="N",
        help="train only the last N blocks of the backbone; default: all")
    group.add_argument("--checkpoint-activations", action="store_true",
        help="recompute activations in the backward pass: half the memory, a third more time")


def add_recipe(
    parser: argparse.ArgumentParser, losses: Iterable[str], augmentations: Iterable[str]
) -> None:
    group = parser.add_argument_group("recipe")
    add_image_size(group, None, "; default: 448 448")
    add_augmentation(group, augmentations)
    group.add_argument("--batch", type=positive_int, default=8,
        help="pictures per batch (and per process)")
    group.add_argument("--grad-accum", type=positive_int, default=1, metavar="N",
        help="batches whose gradients make one step")
    group.add_argument("--epochs", type=positive_int, default=20, help="passes over the data")
    group.add_argument("--watch", default="miou", metavar="SCORE",
        help="validation score that chooses best_model_iou.pth and that --patience looks at: miou, "
        "loss, boundary (mean boundary IoU), or the name of a class for its IoU")
    group.add_argument("--patience", type=positive_int, metavar="N",
        help="stop after N epochs without a better score (--watch)")
    group.add_argument("--lr", type=number(above=0), default=1e-3, help="learning rate of AdamW")
    group.add_argument("--warmup", type=number(0), default=0.0, metavar="EPOCHS",
        help="epochs of linear learning-rate warm-up")
    group.add_argument("--scheduler", action="store_true",
        help="multiply the learning rate by 0.1 at each of --scheduler-epochs")
    group.add_argument("--scheduler-epochs", type=positive_int, nargs="+", metavar="EPOCH",
        help="epochs after which --scheduler acts; default: 30")
    group.add_argument("--schedule", choices=SCHEDULES,
        help="step: the same as --scheduler; cosine, poly: the learning rate falls to 0 at the end "
        "of --epochs, along half a cosine or a straight line; default: constant learning rate")
    group.add_argument("--weight-decay", type=number(0), default=WEIGHT_DECAY,
        metavar="FACTOR", help="weight decay of AdamW")
    group.add_argument("--clip-grad", type=number(above=0), metavar="NORM",
        help="clip the gradient to this norm; default: no clipping")
    group.add_argument("--loss", default="ce", choices=tuple(losses),
        help="ce: cross-entropy; ce+dice: plus Dice loss, for small classes; focal: cross-entropy "
        "that gives little weight to pixels that are right already")
    group.add_argument("--class-weights", default="none", choices=("none", "auto"),
        help="auto: weight of a class in the loss is 1 / sqrt(its share of the training pixels)")
    group.add_argument("--cache-features", type=number(0, whole=True), default=0, metavar="N",
        help="compute the frozen backbone's features once, for N augmented variants of each "
        "training picture, and train the head on these; 0: compute them in each epoch")


def add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--out-dir", default="", metavar="NAME", help="folder below outputs/")
    group.add_argument("--like", metavar="FILE",
        help="repeat the run of an outputs/NAME/run.json: its flags, but for --out-dir and "
        "--resume, stand before those given here, which win")
    group.add_argument("--resume", nargs="?", const=True, metavar="FILE",
        help="continue from last.pth in the output folder, or from another such file")
    group.add_argument("--save-every", type=number(above=0), default=10.0, metavar="MINUTES",
        help="minutes between two saves of last.pth within an epoch")
    add_shared(group, "--device", "--runtime")
    group.add_argument("--amp", action="store_true",
        help="mixed precision: bfloat16, or float16 on GPUs without it; a CPU without: float32")
    add_shared(group, "--compile", "--workers", "--seed")
    group.add_argument("--deterministic", action="store_true",
        help="bit-identical results on CUDA too, slower; a CPU always gives them")
    group.add_argument("--tensorboard", action="store_true",
        help="log the scores for TensorBoard, which must be installed")
    add_shared(group, "--no-page")

    group = parser.add_argument_group("test")
    group.add_argument("--test-only", action="store_true",
        help="score --model on one split, write results.csv and the confusion matrix")
    group.add_argument("--split", choices=tuple(SPLIT_WORDS),
        help="split that --test-only scores; default: test if there is one, else valid")
    add_used_model(group)
# fmt: on
