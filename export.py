"""Write a trained model as one file for ONNX Runtime or torch.export."""

if __name__ == "__main__":  # before the imports, which take seconds
    from common.signals import end_at_interrupt

    end_at_interrupt()

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import config
from common.exits import exits_cleanly
from data.transforms import Resize
from exported.writer import TOLERANCES, Exportable, ExportOptions, export_model
from flags.parser import Parser, number
from flags.shared import add_image_size, add_model_flags
from inference.protocol import Protocol
from labels.classes import default_classes
from model import build_model
from predictor import PredictorOptions, load_predictor

MODEL_FLAGS = ("--backbone", "--head", "--num-classes")


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Write a model as one file for ONNX Runtime or torch.export.")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE",
        help="FILE.onnx (ONNX Runtime) or FILE.pt2 (torch.export), checked against torch: RGB "
        "0..255 float32 (B, 3, H, W) to logits (B, K, H, W), B = 1 without --dynamic")
    parser.add_argument("--model", metavar="FILE",
        help="a trained checkpoint or a published head, in place of --backbone, --head and "
        "--num-classes")
    add_model_flags(parser, None, "; default: none, or what --model was trained on")
    parser.add_argument("--num-classes", type=number(2, config.MAX_CLASSES, whole=True),
        default=21, help="number of classes")
    add_image_size(parser, None, "; default: 640 640, or what --model was trained on")
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
        parser.refuse_given(args, MODEL_FLAGS, "is what --model was trained with: leave it out")
        used = load_predictor(
            args.model,
            torch.device("cpu"),
            PredictorOptions(weights=args.weights, hub_repo=args.hub_repo),
        )
        chosen = Exportable(used.model, used.protocol, used.classes)
    else:
        spec = config.ModelConfig(
            args.backbone, args.head, args.num_classes, args.weights or "none", args.hub_repo
        )
        model = build_model(spec)
        resize = Resize((640, 640), input_format=model.input_format)
        chosen = Exportable(model, Protocol(resize), default_classes(args.num_classes))
    options = ExportOptions(args.imgsz, args.dynamic, args.weights_dtype)
    print(export_model(args.to, chosen, options))


if __name__ == "__main__":
    main()
