"""Segment pictures with a trained checkpoint or a published head."""

import argparse
import sys
import time
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from common import distributed
from common.exits import exits_cleanly
from common.flags import add_inference_flags, predictor_options
from common.job_record import JobRecord, record_files
from common.lock import sole_writer
from common.parser import Parser, number, some_of
from common.pipeline import overlapping, speed
from config import PredictorOptions
from inference.windows import Prediction
from predictor import KEPT, Predictor, list_models, load_predictor
from results.annotation_files import FORMATS, POLYGONS, AnnotationFiles
from results.pages.gallery import InferencePage
from results.picture_files import (
    PICTURE_ENDINGS,
    begin,
    ends_the_run,
    find_pictures,
    names_of_results,
    read_pictures,
    save_prediction,
    write_contact_sheet,
)
from results.tables import ResultsTable
from utils import InputError, output_folder, progress


# fmt: off
def get_args_parser() -> Parser:
    parser = Parser("Segment pictures.")
    add_inference_flags(parser, "inference_results_image", batch=1)
    parser.add_argument("--input", nargs="+", metavar="PATH",
        help="pictures: folders (sub-folders included), files or patterns like 'photos/*.jpg'")
    parser.add_argument("--save", type=some_of(*PICTURE_ENDINGS, *FORMATS),
        default=("overlay",), metavar="KINDS",
        help="of overlay (JPEG with legend), mask (palette PNG of class ids), side-by-side (JPEG), "
        "confidence (8-bit PNG, 255 is certain), probabilities (npz of float16), joined by commas; "
        "labelme, coco, yolo (polygons) and dataset (masks): a data set with copies of the "
        "pictures, for annotation tools and train.py --data")
    parser.add_argument("--simplify", type=number(0), default=1.0, metavar="PIXELS",
        help="how far polygons may be off the mask; 0: not at all, with many more points")
    parser.add_argument("--min-area", type=number(0, whole=True), default=16, metavar="PIXELS",
        help="parts and holes with fewer pixels make no polygon")
    parser.add_argument("--zip", action="store_true",
        help="pack each data set of --save too, for an import; dataset.zip is CVAT's "
        "'Segmentation mask 1.1'")
    parser.add_argument("--sort-by-confidence", action="store_true",
        help="put the least confident pictures first in results.csv and the contact sheet")
    parser.add_argument("--skip-existing", action="store_true",
        help="skip pictures that an earlier run into this folder has segmented")
    return parser
# fmt: on


def segment(
    paths: Sequence[Path],
    predictor: Predictor,
    batch_size: int,
    keep: Collection[str],
    problems: dict[Path, str],
) -> Iterator[tuple[Path, np.ndarray, Prediction]]:
    """Yield (path, RGB picture, prediction); decoding, model and caller work at the same time.

    keep: see Predictor.predict. Why a picture cannot be read is added to problems.
    """

    def predictions(batches: Iterable[list[tuple[Path, np.ndarray]]]) -> Iterator[list]:
        for batch in batches:
            results = predictor.predict([image for _, image in batch], keep)
            yield [(*item, result) for item, result in zip(batch, results, strict=True)]

    batches = read_pictures(paths, batch_size, problems, predictor.value_range)
    with overlapping(batches, predictions) as segmented:
        for batch in segmented:
            yield from batch


def job_record(model: str, options: PredictorOptions, more: dict[str, float]) -> JobRecord:
    """What the results depend on, but for the pictures; more: settings beside the options."""
    settings = asdict(options) | more
    del settings["batch_size"]
    paths = [Path(name) for name in (model, options.weights) if name and Path(name).is_file()]
    model = "a file" if Path(model).is_file() else model
    return JobRecord(settings, model, {}, *record_files(paths))


def check_polygon_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Raise InputError for flags of data sets that do nothing."""
    for flag, kinds in {"--simplify": POLYGONS, "--min-area": POLYGONS, "--zip": FORMATS}.items():
        if not set(args.save) & set(kinds):
            parser.refuse_given(args, [flag], f"has no effect without --save {', '.join(kinds)}")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = get_args_parser()
    args = parser.parse_args(argv)
    if args.list_models:
        print(list_models())
        return
    check_polygon_flags(parser, args)
    pictures = find_pictures(args.input)
    folder = output_folder(args.out_dir)
    started = time.perf_counter()
    with distributed.session(args.device) as device, sole_writer(folder):
        names = distributed.from_main(lambda: names_of_results(pictures, folder, args.save))
        with distributed.main_first():  # what has to be downloaded is so once
            options = predictor_options(args)
            predictor = load_predictor(args.model, device, options)
        if getattr(predictor.model, "gives_labels", False) and set(KEPT) & set(args.save):
            raise InputError(f"--save {' or '.join(KEPT)}: {args.model} gives class ids alone")
        classes = predictor.classes
        outlines = {"simplify": args.simplify, "min_area": args.min_area}
        record = job_record(args.model, options, {"alpha": args.alpha} | outlines)
        table = ResultsTable(folder, classes, args.skip_existing, record)
        annotations = AnnotationFiles(folder, classes, args.save, args.simplify, args.min_area)
        todo = distributed.from_main(lambda: begin(names, table, annotations, folder, args.save))
        mine = todo[distributed.rank() :: distributed.world_size()]

        problems: dict[Path, str] = {}
        print(f"model loaded in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        keep = {"confidence", *args.save} & set(KEPT)
        facts = {"model": args.model, "device": str(device)}
        page = InferencePage(table, classes, names, problems, facts, not args.no_page)
        segmented = segment(mine, predictor, args.batch, keep, problems)
        failures = []
        with page, closing(segmented):
            for path, image, prediction in progress(segmented, "Segmenting", len(mine)):
                target = folder / names[path]
                try:
                    save_prediction(target, image, prediction, classes, args.save, args.alpha)
                    annotations.add(path, names[path], prediction.labels)
                    page.add(names[path], image, prediction)
                except (InputError, OSError) as error:
                    if ends_the_run(error):
                        raise
                    problems[path] = str(error)
                else:
                    table.add(path, names[path], prediction)
            table.finish(args.sort_by_confidence)
            problems |= ChainMap(*distributed.gathered(problems))
            annotations.finish(args.zip)
            if distributed.is_main():
                failures = [problems[path] for path in todo if path in problems]
                failures += write_contact_sheet(folder, table)
        num_done = len(todo) - len(problems)
        print(f"{num_done} of {len(names)} pictures segmented, results in {folder}")
        if len(todo) < len(names):
            print(f"{len(names) - len(todo)} were there already")
        print(speed(num_done, "pictures", started, predictor.compile_seconds))
    if failures:
        sys.exit("\n".join(f"error: {failure}" for failure in failures))


if __name__ == "__main__":
    main()
