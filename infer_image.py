"""Segment the pictures of a folder with a trained checkpoint or a published head."""

import sys
from collections.abc import Sequence

import config
from errors import exits_cleanly
from files import output_folder
from images import find_pictures, output_names, read_pictures, save_prediction
from official import list_models
from predictor import load_predictor
from utils import progress, select_device


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = config.infer_image_parser().parse_args(argv)
    if args.list_models:
        print(list_models())
        return
    paths = find_pictures(args.input)
    names = output_names(paths, args.input)
    folder = output_folder(args.out_dir)
    device = select_device(args.device)
    options = config.predictor_options(args)
    predictor = load_predictor(args.model, device, args.min_confidence, **options)

    problems: list[str] = []
    bar = progress(paths, "Segmenting")
    for batch in read_pictures(bar, args.batch, problems):
        predictions = predictor.predict([image for _, image in batch], keep=args.save)
        for (path, image), prediction in zip(batch, predictions, strict=True):
            target = folder / names[path]
            save_prediction(target, image, prediction, predictor.classes, args.save, args.alpha)
    print(f"{len(paths) - len(problems)} of {len(paths)} pictures segmented, results in {folder}")
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))


if __name__ == "__main__":
    main()
