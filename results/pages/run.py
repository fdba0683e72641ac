"""The page of train.py: a training run, or the test of a model, and its worst pictures."""

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from common import distributed
from data.labels.classes import Classes
from data.pairs import SPLIT_NAMES, Pair, read_stored
from data.survey import SegmentationData
from metrics import Scores
from results.history import Row, Watch
from results.pages.charts import line_chart
from results.pages.gallery import class_entries, gallery, show_picture
from results.pages.html import Page
from results.pages.layers import PREVIEW_SIDE, fit, url
from results.scores import COLUMNS, means_of
from utils import printable

KEPT = range(6, 25)  # of the worst pictures: one in KEPT_OF, between these
KEPT_OF = 5
MATRIX_CLASSES = 24  # shown of a confusion matrix: those that are confused most
CHARTS = {"miou": "mIoU", "loss": "Loss", "pixel_acc": "Pixel accuracy"}
LINKED_FILES = (
    "results.csv", "confusion.csv", "history.csv", "run.json", "best_model_iou.pth",
    "best_model_loss.pth", "final_model.pth", "last.pth",
)  # fmt: skip
MODES = [
    ("Picture", "", False),
    ("Prediction", "prediction", True),
    ("Truth", "target", True),
    ("Errors", "errors", True),
]


class RunPage(Page):
    """The page of a training run, or without a history that of a test.

    scored: the pairs that it is scored on; `add` these. statement: what was trained on what. facts:
    settings by name, as short texts. history: a row per epoch, which grows with the run. watch:
    what chooses best_model_iou.pth.
    """

    def __init__(
        self, folder: Path, classes: Classes, scored: Sequence[Pair], statement: str,
        facts: Mapping[str, str], history: Sequence[Row] | None = None, watch: Watch | None = None,
        wanted: bool = True,
    ):  # fmt: skip
        super().__init__(folder, wanted)
        self.kind = "Test" if history is None else "Training run"
        self._watch, self._classes = watch or Watch(), classes
        self._statement, self._facts = statement, facts
        self._history = [] if history is None else history
        self._worst = WorstPictures(folder, classes, scored)
        self._scores: Scores | None = None

    def add(
        self, pair: Pair, labels: np.ndarray, target: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Look at the prediction for a pair; see WorstPictures.add."""
        if self.wanted:
            self._worst.add(pair, labels, target, image)

    def finish(self, scores: Scores) -> None:
        """Show the final scores and the worst pictures. All processes call it together."""
        self._scores = scores
        if self.wanted:
            self._worst.draw()

    def text(self, state: str) -> str:
        entries, scores = class_entries(self._classes), self._scores
        names = [f"epoch_{row['epoch']:03d}" for row in self._history]
        previews = [(name.replace("_", " "), f"valid_preds/{name}.jpg") for name in names]
        files = [(name, url(name)) for name in LINKED_FILES if (self.folder / name).is_file()]
        return self.render(
            "run.html", state, self._statement, self._facts, files,
            headlines=_headlines(self._history, scores, self._watch),
            charts=_charts(self._history),
            classes=entries[:-1],
            scores=scores and {name: scores[name].tolist() for name in COLUMNS},
            matrix=scores and confusion(self._classes.names, scores["matrix"].matrix.numpy()),
            previews=[item for item in previews if (self.folder / item[1]).is_file()],
            worst=gallery(entries, MODES, 3, [("IoU", "number")], self._worst.pictures),
        )  # fmt: skip


def data_facts(data: SegmentationData) -> dict[str, str]:
    """What a page says of a data set."""
    counts = [f"{len(pairs)} {s}" for s in SPLIT_NAMES if (pairs := data.splits.pairs_of(s))]
    names = data.classes.names
    return {
        "data": data.source,
        "pairs": ", ".join(counts),
        "classes": f"{len(names)}: {', '.join(names[:8])}" + (", ..." if names[8:] else ""),
    }


def _headlines(
    history: Sequence[Row], scores: Scores | None, watch: Watch
) -> list[tuple[str, str]]:
    means = means_of(scores) if scores else {}
    headlines = [(name, f"{mean:.4f}") for name, mean in means.items() if math.isfinite(mean)]
    if history:
        best = watch.best(history)
        if not scores:
            headlines.append((f"best {watch.title}", watch.text(best)))
        headlines.append(("best epoch", f"{best['epoch']} of {len(history)}"))
    return headlines


def _charts(history: Sequence[Row]) -> list[dict]:
    if not history:
        return []
    epochs = [row["epoch"] for row in history]
    lines = {
        title: {split: f"{split}_{score}" for split in ("train", "valid")}
        for score, title in CHARTS.items()
    }
    lines["Learning rate"] = {"rate": "lr"}
    return [
        line_chart(title, "epoch", epochs, {k: [row[v] for row in history] for k, v in of.items()})
        for title, of in lines.items()
    ]


def confusion(names: Sequence[str], counts: np.ndarray) -> dict:
    """What the template takes of a confusion matrix: the classes that are confused most.

    counts: pixels (K, K), targets in rows and predictions in columns. Of what is returned, rows:
    target, then (pixels, share of the target's pixels).
    """
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    wrong = counts * ~np.eye(len(names), dtype=bool)
    by_mistakes = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
    shown = np.sort(by_mistakes[:MATRIX_CLASSES])
    rows = [(names[t], [(int(counts[t, p]), float(shares[t, p])) for p in shown]) for t in shown]
    return {
        "names": [names[p] for p in shown],
        "rows": rows,
        "left_out": len(names) - len(shown),
    }


def picture_iou(labels: np.ndarray, target: np.ndarray, num_classes: int) -> float:
    """Mean IoU of a picture over the classes in target or prediction; 1 where all is ignored."""
    sizes, ranges = [256, 256], [0, 256, 0, 256]
    pixels = cv2.calcHist([target, labels], [0, 1], None, sizes, ranges)[:num_classes]
    hits = pixels.diagonal()
    union = pixels.sum(1) + pixels[:, :num_classes].sum(0) - hits
    present = union > 0
    return float((hits[present] / union[present]).mean()) if present.any() else 1.0


class WorstPictures:
    """Keeps the pictures of the lowest IoU, one in KEPT_OF; `draw` draws them for the page.

    pairs: those that are scored, of all processes.

    Attributes:
        pictures: entries of a gallery, in the main process, the worst first.
    """

    def __init__(self, folder: Path, classes: Classes, pairs: Sequence[Pair]):
        self._folder, self._classes = folder, classes
        self._count = min(max(len(pairs) // KEPT_OF, KEPT[0]), KEPT[-1])
        self._places = {pair: place for place, pair in enumerate(pairs)}
        # By IoU and place in pairs: pair, labels, target, image.
        self._kept: dict[tuple[float, int], tuple] = {}
        self.pictures: list[dict] = []

    def add(
        self, pair: Pair, labels: np.ndarray, target: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Score the picture of a pair.

        labels, target: class ids (H, W) uint8. image: RGB (H, W, 3) uint8; without it the picture
        is read again if it is among the worst.
        """
        key = (picture_iou(labels, target, self._classes.num_classes), self._places[pair])
        small = None if image is None else fit(image, PREVIEW_SIDE)
        self._kept[key] = (pair, labels, target, small)
        if len(self._kept) > self._count:
            del self._kept[max(self._kept)]

    def draw(self) -> None:
        """Draw the worst of all processes' pictures. All processes call it together."""
        worst = sorted(key for keys in distributed.gathered(list(self._kept)) for key in keys)
        drawn = {
            key: self._draw(rank, key[0], *self._kept[key])
            for rank, key in enumerate(worst[: self._count])
            if key in self._kept
        }
        drawn = ChainMap(*distributed.gathered(drawn))
        self.pictures = [drawn[key] for key in sorted(drawn)]

    def _draw(
        self, rank: int, iou: float, pair: Pair, labels: np.ndarray, target: np.ndarray,
        image: np.ndarray | None,
    ) -> dict:  # fmt: skip
        if image is None:
            image, _, _ = read_stored(pair)
            if pair.window:
                image = pair.window.of_image(image, (0, 0, 0))
        return show_picture(
            self._folder, Path("worst", f"{rank:02d}"), image,
            {"prediction": labels, "target": target}, self._classes,
            name=pair.image.name, numbers=[round(iou, 4)], note=printable(pair.image),
        )  # fmt: skip
