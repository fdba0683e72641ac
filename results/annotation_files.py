"""Predictions as data sets that annotation tools and train.py --data read, pictures included.

labelme: a JSON file beside each picture. coco: annotations/ and images/. yolo: data.yaml,
images/ and labels/. dataset: masks in the layout of Pascal VOC with a labelmap.txt, which CVAT
imports as "Segmentation mask 1.1". All but the last hold the classes' connected parts as polygons,
and a dataset.yaml, which train.py takes names, order and colours from.
"""

import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from common.distributed import gathered, is_main
from config import IGNORE_INDEX
from data.images import write_mask
from data.labels.class_entries import IGNORE_LABEL
from data.labels.class_files import class_file_text
from data.labels.classes import IGNORED_COLOUR, Classes, is_background
from results.polygons import trace
from utils import InputError, temporary_path, write_atomically, writing

FORMATS = {  # of each kind: what is written for a picture, and where a copy of the picture goes
    "labelme": ("labelme/{}.json", "labelme/{}"),
    "coco": (".coco/{}.json", "coco/images/{}"),  # joined in the end
    "yolo": ("yolo/images/{}.txt", "yolo/images/{}"),  # labels/ in place of the last images/
    "dataset": ("dataset/SegmentationClass/{}.png", "dataset/JPEGImages/{}"),
}
POLYGONS = ("labelme", "coco", "yolo")
COCO_FILE = "coco/annotations/instances_default.json"
# Points that are all whole numbers are border pixels to many readers, ours among them.
OFF_GRID = 0.01  # pixels
THERE_ALREADY = (
    "is there already, perhaps corrected by hand, and would be replaced; choose another --out-dir, "
    "or remove its folder"
)


def annotation_files(folder: Path, name: Path, kinds: Iterable[str]) -> dict[str, Path]:
    """The files of one picture by those kinds that are data sets; name: without extension."""
    names = {kind: FORMATS[kind][0].format(name.as_posix()) for kind in kinds if kind in FORMATS}
    if "yolo" in names:
        names["yolo"] = "/labels/".join(names["yolo"].rsplit("/images/", 1))
    return {kind: folder / text for kind, text in names.items()}


class AnnotationFiles:
    """Writes data sets of some kinds of FORMATS into a folder. simplify, min_area: see trace."""

    def __init__(
        self, folder: Path, classes: Classes, kinds: Collection[str], simplify: float, min_area: int
    ):
        self.folder, self.classes = folder, classes
        self.simplify, self.min_area = simplify, min_area
        self.kinds = [kind for kind in FORMATS if kind in kinds]
        # Class ids in the order of YOLO's numbers from 0 and COCO's from 1.
        self._shown = [k for k, name in enumerate(classes.names) if not is_background(name)]
        self._counts = np.zeros(3, np.int64)  # parts, parts left out, ignored pixels

    def _write(self, name: str, text: str) -> None:
        """Write a file; InputError where one is there already that says something else."""
        path = self.folder / name
        if path.exists() and path.read_bytes() != text.encode():
            raise InputError(f"{path} {THERE_ALREADY}")
        write_atomically(path, text.encode())

    def begin(self, files: Sequence[Path]) -> None:
        """Write files of classes; InputError where one of the files to come is there already."""
        joint = [self.folder / COCO_FILE] if files and "coco" in self.kinds else []
        for path in filter(Path.exists, [*files, *joint]):
            raise InputError(f"{path} {THERE_ALREADY}")
        for kind in self.kinds if files else ():
            self._write_classes(kind)

    def _write_classes(self, kind: str) -> None:
        names, palette = self.classes.names, self.classes.palette
        if kind == "dataset":
            if unfit := [name for name in names if ":" in name or name.startswith("#")]:
                raise InputError(f"--save dataset: labelmap.txt cannot hold the name {unfit[0]}")
            listed = zip((*names, IGNORE_LABEL), (*palette, IGNORED_COLOUR), strict=True)
            lines = [f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in listed]
            self._write("dataset/labelmap.txt", "".join(lines))
            return
        if kind == "yolo":  # which wants a folder to validate on too; ours splits one off
            shown = json.dumps([names[k] for k in self._shown], ensure_ascii=False)
            self._write("yolo/data.yaml", f"path: .\ntrain: images\nnames: {shown}\n")
        text = class_file_text(names, palette)
        if len(self._shown) == len(names):  # what no polygon covers is ignored
            names, palette, ignored = ("background", *names), ((0, 0, 0), *palette), ["background"]
            text = class_file_text(names, palette, ignore_classes=ignored)
        self._write(f"{kind}/dataset.yaml", text)

    def add(self, path: Path, name: Path, labels: np.ndarray) -> None:
        """Write the files of a picture; labels: (H, W) uint8 as it is upright."""
        picture = f"{name.as_posix()}{path.suffix}"
        content = path.read_bytes() if self.kinds else b""
        texts = self._texts(picture, labels) if {*self.kinds} & {*POLYGONS} else {}
        for kind, file in annotation_files(self.folder, name, self.kinds).items():
            if file.exists():  # of a run that was killed before it was done with the picture
                continue
            write_atomically(self.folder / FORMATS[kind][1].format(picture), content)
            if kind in texts:
                write_atomically(file, texts[kind].encode())
            else:
                write_mask(file, labels, self.classes.palette)

    def _texts(self, picture: str, labels: np.ndarray) -> dict[str, str]:
        """What the kinds of POLYGONS write for a picture."""
        names = dict(enumerate(self.classes.names)) | {IGNORE_INDEX: IGNORE_LABEL}
        ids = [*self._shown, *([IGNORE_INDEX] if "labelme" in self.kinds else [])]
        parts, left_out = trace(labels, ids, self.simplify, self.min_area)
        self._counts += len(parts), left_out, np.count_nonzero(labels == IGNORE_INDEX)
        height, width = labels.shape
        about = {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}}
        shapes, annotations, rows = [], [], []
        for class_id, ring in parts:
            points = np.minimum(ring + OFF_GRID, (width, height)).round(2)
            shapes.append({"label": names[class_id], "points": points.tolist()} | about)
            if class_id == IGNORE_INDEX:
                continue
            number, low, size = self._shown.index(class_id), ring.min(axis=0), np.ptp(ring, axis=0)
            annotations.append({
                "category_id": number + 1, "iscrowd": 0, "segmentation": [points.ravel().tolist()],
                "area": cv2.contourArea(np.float32(ring)), "bbox": [*low.tolist(), *size.tolist()],
            })  # fmt: skip
            shares = " ".join(f"{share:.7g}" for share in (ring / (width, height)).ravel())
            rows.append(f"{number} {shares}\n")
        labelme = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None}
        labelme |= {"imagePath": Path(picture).name, "imageHeight": height, "imageWidth": width}
        image = {"file_name": picture, "height": height, "width": width}
        coco = {"image": image, "annotations": annotations}
        return {"labelme": json.dumps(labelme), "coco": json.dumps(coco), "yolo": "".join(rows)}

    def finish(self, zipped: bool) -> None:
        """Write lists, tell what is left out, pack each data set if `zipped`. All processes do."""
        num_parts, left_out, ignored = sum(gathered(self._counts))
        if not is_main():
            return
        if "coco" in self.kinds and not (self.folder / COCO_FILE).exists():
            self._write(COCO_FILE, json.dumps(self._joined()))
        if "dataset" in self.kinds:
            masks = self.folder / "dataset/SegmentationClass"
            names = sorted(path.relative_to(masks).with_suffix("") for path in masks.rglob("*.png"))
            listed = "".join(f"{name.as_posix()}\n" for name in names)
            write_atomically(masks.parent / "ImageSets/Segmentation/default.txt", listed.encode())
        if num_parts or left_out:
            print(f"{num_parts} polygons; {left_out} smaller parts (--min-area) are left out")
        if ignored and {"coco", "yolo"} & {*self.kinds}:
            print(f"{ignored} ignored pixels are as background in COCO and YOLO, which have none")
        for kind in self.kinds if zipped else ():
            path = self.folder / f"{kind}.zip"
            with writing(path):
                made = shutil.make_archive(str(temporary_path(path)), "zip", self.folder / kind)
                Path(made).replace(path)
            print(path)

    def _joined(self) -> dict:
        """The content of COCO_FILE from its parts."""
        images, annotations = [], []
        for number, path in enumerate(sorted((self.folder / ".coco").rglob("*.json")), 1):
            content = json.loads(path.read_bytes())
            images.append({"id": number} | content["image"])
            for annotation in content["annotations"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number} | annotation)
        names = [self.classes.names[k] for k in self._shown]
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        return {"images": images, "annotations": annotations, "categories": categories}
