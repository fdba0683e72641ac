"""Segment the pictures of a folder with a trained checkpoint."""

import sys
from collections.abc import Sequence

import config
from errors import exits_cleanly
from files import output_folder
from images import find_pictures, output_names, overlay, read_pictures, write_image, write_mask
from predictor import Predictor
from utils import progress, select_device


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = config.infer_image_parser().parse_args(argv)
    paths = find_pictures(args.input)
    names = output_names(paths, args.input)
    folder = output_folder(args.out_dir)
    predictor = Predictor.from_checkpoint(
        args.model, select_device(args.device), args.imgsz, args.weights, args.hub_repo
    )

    problems: list[str] = []
    bar = progress(paths, "Segmenting")
    for batch in read_pictures(bar, args.batch, problems):
        labels = predictor.predict([image for _, image in batch])
        for (path, image), ids in zip(batch, labels, strict=True):
            target = folder / names[path]
            if "overlay" in args.save:
                drawn = overlay(image, ids, predictor.palette, predictor.names, args.alpha)
                write_image(target.with_name(f"{target.name}_overlay.jpg"), drawn)
            if "mask" in args.save:
                write_mask(target.with_name(f"{target.name}_mask.png"), ids, predictor.palette)
    print(f"{len(paths) - len(problems)} of {len(paths)} pictures segmented, results in {folder}")
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))


if __name__ == "__main__":
    main()
