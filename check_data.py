"""Report on a data set: what it holds, and what is wrong with it."""

import argparse
from collections.abc import Sequence

import config
from common.exits import exits_cleanly
from common.flags import add_augmentation, add_data_flags, add_image_size, add_shared
from common.parser import Parser
from data.augment import AUGMENTS, build_augment
from data.survey import inspect_data
from data.transforms import Resize
from datasets import splits_from_flags
from results.data_report import write_augment_sheet, write_masks, write_report
from results.pages.dataset import DatasetPage
from utils import output_folder


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Check a data set and report on it in outputs/dataset_report.")
    add_data_flags(parser)
    parser.add_argument("--download", choices=config.DOWNLOADS,
        help="download this data set into input/ first, and use it in place of --data")
    parser.add_argument("--write-masks", metavar="NAME",
        help="also write images, masks and classes to outputs/NAME, in this project's layout")
    view = parser.add_argument_group("what the network will see")
    view.add_argument("--show-augment", action="store_true",
        help="also draw outputs/dataset_report/augment.png, pictures as training will see them")
    add_image_size(view, None, "; default: 448 448")
    add_augmentation(view, AUGMENTS)
    add_shared(view, "--seed")
    add_shared(parser, "--no-page")
    return parser
# fmt: on


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = get_args_parser()
    args = parser.parse_args(argv)
    flags = ("--imgsz", "--augment", "--keep-ratio", "--seed")
    parser.refuse_without(args, "--show-augment", flags)
    if args.download:
        from data.downloads import SOURCES, download  # imports torchvision, which takes a second

        args.data = download(SOURCES[args.download])
    splits = splits_from_flags(args)
    source = str(splits.root or splits.layout)
    with DatasetPage(output_folder("dataset_report"), source, not args.no_page) as page:
        data = page.data = inspect_data(splits)
        write_report(data)
        if args.show_augment:
            resize = Resize(args.imgsz or config.TRAIN_SIZE, args.keep_ratio)
            write_augment_sheet(data, build_augment(args.augment, resize, args.seed))
    data.raise_problems()
    if args.write_masks:
        write_masks(data, args.write_masks)


if __name__ == "__main__":
    main()
