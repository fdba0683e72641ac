"""Train heads on few labelled pictures and on all of them; write a table and a plot of the scores.

Each run is a `python train.py` of its own, on a part of the data set. Draw d takes the first N of
the training pictures in an order shuffled with seed d, and trains with that seed; the validation
pictures are always the same. Runs whose scores stand in the table already are left out.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean

import config
from common.exits import exits_cleanly
from common.flags import add_backbone_source, add_image_size
from common.lock import sole_writer
from common.parser import Parser, number, positive_int
from data.layouts import find_splits
from data.survey import SegmentationData, load_data
from model import HEADS
from results.data_report import write_masks
from results.plots import new_axes, png
from results.tables import csv_text
from utils import InputError, output_folder, write_atomically

FOLDER = "few-pictures"
FEW = 50  # pictures, up to which batches are small and epochs many


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Score heads that were trained on few labelled pictures.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set")
    parser.add_argument("--backbone", default="dinov2_vits14", help="as in train.py")
    add_backbone_source(parser, "pretrained")
    add_image_size(parser, config.TRAIN_SIZE)
    parser.add_argument("--pictures", type=number(0, whole=True), nargs="+", metavar="N",
        default=[5, 10, 20, 50, 0], help="labelled pictures to train on; 0: all")
    parser.add_argument("--draws", type=positive_int, default=3,
        help="runs of each kind, with seeds 0, 1, ...")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=["ms", "spread"],
        metavar="HEAD", help="as --head of train.py")
    parser.add_argument("--refine", action="store_true", help="score each model with --refine too")
    return parser
# fmt: on


def train(data: Path, folder: str, *flags: str) -> None:
    """Run train.py on a data set, into a folder below outputs/."""
    command = [sys.executable, str(Path(config.THIS_REPO) / "train.py"), "--data", str(data)]
    command += ["--out-dir", folder, "--no-page", "--runtime", "auto", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def recipe(head: str, num_pictures: int) -> list[str]:
    """The flags of a training that do not depend on the draw."""
    flags = f"--head {head} --augment flip --cache-features 2 --warmup 1"
    flags += f" --lr {0.003 if head in ('ms', 'linear') else 0.001}"
    if head == "spread":  # its contours need more steps
        flags += f" --schedule cosine --epochs {max(20, 600 // num_pictures)} --batch 2"
        return flags.split()
    flags += " --scheduler --scheduler-epochs"
    flags += " 14 18 --epochs 20 --batch 2" if num_pictures <= FEW else " 7 9 --epochs 10 --batch 8"
    return flags.split()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none where it is missing."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def part_of(data: SegmentationData, count: int, draw: int) -> Path:
    """The folder of a data set of `count` training pictures, which is written if need be."""
    train = list(data.splits.train)
    random.Random(draw).shuffle(train)
    name = f"{FOLDER}/data-{data.splits.root.name}-{count}-{draw if count < len(train) else 'all'}"
    if not (config.OUTPUTS / name).is_dir():
        splits = replace(data.splits, train=train[:count], test=[])
        write_masks(replace(data, splits=splits), name)
    return config.OUTPUTS / name


def scores_of(folder: str, kind: str = "") -> dict[str, str]:
    """mIoU and boundary IoU of a run, by names that begin with kind."""
    rows = read_rows(config.OUTPUTS / folder / "results.csv")
    means = {row["class"]: row["iou"] for row in rows}
    return {f"{kind}miou": means["mIoU"], f"{kind}boundary_iou": means["mean boundary IoU"]}


def score_run(args: argparse.Namespace, data: SegmentationData, key: dict[str, str]) -> dict:
    """Train one head, and score it; a row of the table. key: the row's first columns."""
    count, draw, head = int(key["pictures"]), int(key["draw"]), key["head"]
    part = part_of(data, count, draw)
    folder = f"{FOLDER}/{args.data.name}-{'-'.join(key.values())}"
    height, width = args.imgsz
    flags = ["--backbone", args.backbone, "--weights", args.weights, "--seed", key["draw"]]
    flags += ["--hub-repo", args.hub_repo] if args.hub_repo else []
    before = os.times()
    train(part, folder, *flags, "--imgsz", str(width), str(height), *recipe(head, count))
    used = os.times()
    miou = [float(row["valid_miou"]) for row in read_rows(config.OUTPUTS / folder / "history.csv")]
    scores = scores_of(folder) | {"last_miou": miou[-1], "best_epoch": 1 + miou.index(max(miou))}
    if args.refine:
        best = str(config.OUTPUTS / folder / "best_model_iou.pth")
        train(part, f"{folder}-refined", "--test-only", "--refine", "--model", best)
        scores |= scores_of(f"{folder}-refined", "refined_")
    seconds = sum(used[2:4]) - sum(before[2:4])  # of child processes, in user and in kernel mode
    return key | scores | {"cpu_minutes": round(seconds / 60, 2)}


def draw_plot(rows: Sequence[dict[str, str]], title: str) -> bytes:
    """PNG of the mIoU after the last epoch over the number of pictures: mean, least and most."""
    labels = {"xlabel": "labelled pictures", "ylabel": "mIoU", "title": title}
    axes = new_axes((7, 4.2), xscale="log", **labels)
    for head in dict.fromkeys(row["head"] for row in rows):
        found = defaultdict(list)
        for row in (row for row in rows if row["head"] == head):
            found[int(row["pictures"])].append(float(row["last_miou"]))
        counts = sorted(found)
        least, mean, most = ([of(found[n]) for n in counts] for of in (min, fmean, max))
        axes.plot(counts, mean, marker="o", label=head)
        axes.fill_between(counts, least, most, alpha=0.2)
    ticks = sorted({int(row["pictures"]) for row in rows})
    axes.set_xticks(ticks, ticks)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return png(axes)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = get_args_parser().parse_args(argv)
    data, (height, width) = load_data(find_splits(args.data)), args.imgsz
    folder, total, size = output_folder(FOLDER), len(data.splits.train), f"{width}x{height}"
    if max(args.pictures) > total:
        raise InputError(f"--pictures {max(args.pictures)}: {data.source} has {total} to train on")
    table = folder / f"scores-{args.data.name}{'-refined' if args.refine else ''}.csv"
    with sole_writer(folder):
        for draw, count, head in product(range(args.draws), args.pictures, args.heads):
            values = map(str, (count or total, draw, head, size))
            key = dict(zip(("pictures", "draw", "head", "size"), values, strict=True))
            rows = read_rows(table)
            if any(row.items() >= key.items() for row in rows):
                continue
            row = score_run(args, data, key)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            rows.append({name: str(value) for name, value in row.items()})
            text = csv_text([row.keys(), *(row.values() for row in rows)])
            write_atomically(table, text.encode())
            same_size = [row for row in rows if row["size"] == size]
            plot = draw_plot(same_size, f"{args.data.name}, frozen {args.backbone}, {size}")
            write_atomically(table.with_suffix(".png"), plot)
    print(f"scores in {table}")


if __name__ == "__main__":
    main()
