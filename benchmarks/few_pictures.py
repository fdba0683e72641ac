"""Train heads on few labelled pictures and on all of them; write a table and a plot of the scores.

Each run is a `python train.py` of its own, on a part of the data set. Draw d takes the first N of
the training pictures in an order shuffled with seed d, and trains with that seed; the validation
pictures are always the same. Runs whose scores stand in the table already are left out.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from common.signals import end_at_interrupt

    end_at_interrupt()

import argparse
import csv
import io
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

import config
from common.exits import exits_cleanly
from common.flags import add_backbone_source, add_image_size
from common.lock import sole_writer
from common.parser import Parser, number, positive_int
from data.layouts import find_splits
from data.survey import SegmentationData, load_data
from results.data_report import write_masks
from results.tables import csv_text
from utils import InputError, output_folder, write_atomically

FOLDER = "few-pictures"
KEY = ("pictures", "draw", "head", "size")
SCORES = ("miou", "boundary_iou", "last_miou", "best_epoch", "refined_miou", "refined_boundary_iou")
COLUMNS = (*KEY, *SCORES, "cpu_minutes")
FEW = 50  # pictures, below which batches are small and epochs many
ALWAYS = ("--no-page", "--runtime", "auto")  # flags of train.py


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
    parser.add_argument("--heads", nargs="+", choices=config.HEADS, default=["ms", "mask"],
        metavar="HEAD", help="as --head of train.py")
    parser.add_argument("--refine", action="store_true", help="score each model with --refine too")
    return parser
# fmt: on


@dataclass(frozen=True)
class Run:
    """One training: the flags that are the same for all, and what tells it from the others."""

    folder: str  # below outputs/, of the training
    data: Path
    head: str
    draw: int
    num_pictures: int
    shared: tuple[str, ...]  # flags of the model and the size of pictures

    @property
    def recipe(self) -> dict[str, object]:
        """Values of the flags that depend on head and number of pictures."""
        few = self.num_pictures < FEW
        return {
            "--lr": 0.003 if self.head in ("ms", "linear") else 0.001,
            "--batch": 2 if few else 8,
            "--epochs": 20 if few else 10,
            "--scheduler-epochs": "14 18" if few else "7 9",
        }

    def train(self) -> None:
        flags = f"--augment flip --cache-features 2 --warmup 1 --scheduler --seed {self.draw}"
        flags += "".join(f" {flag} {value}" for flag, value in self.recipe.items())
        self._call(self.folder, "--head", self.head, *self.shared, *flags.split())

    def refine(self) -> None:
        model = config.OUTPUTS / self.folder / "best_model_iou.pth"
        self._call(self.refined_folder, "--test-only", "--refine", "--model", str(model))

    @property
    def refined_folder(self) -> str:
        return f"{self.folder}-refined"

    def _call(self, folder: str, *flags: str) -> None:
        script = str(Path(config.THIS_REPO) / "train.py")
        command = [sys.executable, script, "--data", str(self.data), "--out-dir", folder]
        done = subprocess.run([*command, *ALWAYS, *flags], capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none where it is missing."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def part_of(data: SegmentationData, count: int, draw: int) -> tuple[Path, int]:
    """Write a data set of `count` training pictures, unless it is there; its folder and count."""
    train = list(data.splits.train)
    random.Random(draw).shuffle(train)
    train = train[:count] if count else data.splits.train
    if count > len(train):
        raise InputError(f"--pictures {count}: {data.source} has {len(train)} to train on")
    name = (
        f"{FOLDER}/data-{Path(str(data.splits.root)).name}-{f'{count}-{draw}' if count else 'all'}"
    )
    if not (config.OUTPUTS / name).is_dir():
        write_masks(replace(data, splits=replace(data.splits, train=train, test=[])), name)
    return config.OUTPUTS / name, len(train)


def scores_of(run: Run, refined: bool) -> dict[str, object]:
    """The scores of a training by the names of SCORES."""
    history = read_rows(config.OUTPUTS / run.folder / "history.csv")
    miou = [float(row["valid_miou"]) for row in history]
    found = {"last_miou": miou[-1], "best_epoch": 1 + miou.index(max(miou))}
    folders = {"": run.folder, "refined_": run.refined_folder if refined else None}
    for kind, folder in folders.items():
        rows = read_rows(config.OUTPUTS / folder / "results.csv") if folder else []
        means = {row["class"]: row["iou"] for row in rows}
        found[f"{kind}miou"] = means.get("mIoU", "")
        found[f"{kind}boundary_iou"] = means.get("mean boundary IoU", "")
    return found


def cpu_minutes() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def draw_plot(rows: Sequence[dict[str, str]], title: str) -> bytes:
    """PNG of the mIoU after the last epoch over the number of pictures: mean, least and most."""
    axes = Figure(figsize=(7, 4.2), layout="tight").add_subplot(
        xscale="log", xlabel="labelled pictures", ylabel="mIoU", title=title
    )
    counts = sorted({int(row["pictures"]) for row in rows})
    for head in dict.fromkeys(row["head"] for row in rows):
        found = {n: [] for n in counts}
        for row in rows:
            if row["head"] == head:
                found[int(row["pictures"])].append(float(row["last_miou"]))
        found = {n: values for n, values in found.items() if values}
        means = [sum(values) / len(values) for values in found.values()]
        below = [mean - min(v) for mean, v in zip(means, found.values(), strict=True)]
        above = [max(v) - mean for mean, v in zip(means, found.values(), strict=True)]
        axes.errorbar(list(found), means, yerr=[below, above], marker="o", capsize=3, label=head)
    axes.set_xticks(counts, counts)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    axes.figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def score_all(args: argparse.Namespace, data: SegmentationData, folder: Path) -> None:
    """Make every run whose scores the table lacks, and add them; draw the plot again."""
    table = folder / f"scores-{args.data.name}.csv"
    height, width = args.imgsz
    size = f"{width}x{height}"
    shared = ["--backbone", args.backbone, "--weights", args.weights]
    shared += ["--hub-repo", args.hub_repo] if args.hub_repo else []
    shared += ["--imgsz", str(width), str(height)]
    for draw, count in product(range(args.draws), args.pictures):
        part, num_pictures = part_of(data, count, draw)
        for head in args.heads:
            key = {"pictures": str(num_pictures), "draw": str(draw), "head": head, "size": size}
            rows = read_rows(table)
            if any(row.items() >= key.items() for row in rows):
                continue
            name = f"{FOLDER}/{args.data.name}-{'-'.join(key.values())}"
            run = Run(name, part, head, draw, num_pictures, tuple(shared))
            before = cpu_minutes()
            run.train()
            minutes = cpu_minutes() - before
            if args.refine:
                run.refine()
            row = key | scores_of(run, args.refine) | {"cpu_minutes": f"{minutes:.2f}"}
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            rows.append(row)
            text = csv_text([COLUMNS, *([row[c] for c in COLUMNS] for row in rows)])
            write_atomically(table, text.encode())
            same_size = [row for row in rows if row["size"] == size]
            plot = draw_plot(same_size, f"{args.data.name}, frozen {args.backbone}, {size}")
            write_atomically(table.with_suffix(".png"), plot)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = get_args_parser().parse_args(argv)
    folder = output_folder(FOLDER)
    with sole_writer(folder):
        score_all(args, load_data(find_splits(args.data)), folder)
    print(f"scores in {folder}")


if __name__ == "__main__":
    main()
