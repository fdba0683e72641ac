"""Segment pictures with a trained checkpoint or a published head."""

import sys
from collections.abc import Sequence

import commands
from errors import exits_cleanly
from files import output_folder
from official import list_models
from pictures import (
    check_no_input_is_lost,
    find_pictures,
    is_done,
    output_names,
    read_pictures,
    save_prediction,
    write_contact_sheet,
)
from pipeline import Stopwatch, overlapping
from predictor import load_predictor
from tables import ResultsTable
from utils import progress, select_device


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = commands.infer_image_parser().parse_args(argv)
    if args.list_models:
        print(list_models())
        return
    names = output_names(find_pictures(args.input))
    folder = output_folder(args.out_dir)
    check_no_input_is_lost(names, folder, args.save)
    device = select_device(args.device)
    options = commands.predictor_options(args)
    predictor = load_predictor(args.model, device, args.min_confidence, **options)
    classes = predictor.classes
    table = ResultsTable(folder, classes, keep=args.skip_existing)
    todo = [p for p in names if not (p in table and is_done(folder / names[p], args.save))]

    problems: list[str] = []
    watch = Stopwatch("decode", "model", "drawing and saving")
    predict = watch.timed("model", predictor.predict)
    keep = (*args.save, "confidence")
    with (
        progress(None, "Segmenting", len(todo)) as bar,
        overlapping(
            watch.watch("decode", read_pictures(todo, args.batch, problems)),
            lambda batches: ((b, predict([image for _, image in b], keep)) for b in batches),
        ) as segmented,
    ):
        for batch, predictions in segmented:
            for (path, image), prediction in zip(batch, predictions, strict=True):
                with watch.working("drawing and saving"):
                    target = folder / names[path]
                    save_prediction(target, image, prediction, classes, args.save, args.alpha)
                    table.add(path, names[path], prediction)
                bar.update()
    table.finish(args.sort_by_confidence)
    write_contact_sheet(folder, table.rows.values())
    print(f"{len(todo) - len(problems)} of {len(names)} pictures segmented, results in {folder}")
    if len(todo) < len(names):
        print(f"{len(names) - len(todo)} were there already")
    print(watch.summary(len(todo) - len(problems), "pictures"))
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))


if __name__ == "__main__":
    main()
