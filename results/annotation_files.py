"""Predictions as data sets that annotation tools and train.py --data read, pictures included.

labelme: a JSON file beside each picture. coco: annotations/ and images/. yolo: data.yaml,
images/ and labels/. dataset: masks in the layout of Pascal VOC with a labelmap.txt, which CVAT
imports as "Segmentation mask 1.1". All but the last hold the classes' connected parts as polygons,
and a dataset.yaml, which train.py takes names, order and colours from.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import yaml

from common.distributed import gathered, is_main
from config import IGNORE_INDEX
from data.images import write_mask
from data.labels.class_entries import IGNORE_LABEL
from data.labels.classes import BACKGROUND_NAMES, Classes, colour_table, is_background
from results.polygons import Part, Tracing, trace
from utils import InputError, remove_leftovers, temporary_path, write_atomically

FORMATS = {  # of each kind: what is written for a picture, and where a copy of the picture goes
    "labelme": ("labelme/{}.json", "labelme/{}"),
    "coco": (".coco/{}.json", "coco/images/{}"),  # joined in the end
    "yolo": ("yolo/images/{}.txt", "yolo/images/{}"),  # labels/ in place of the last images/
    "dataset": ("dataset/SegmentationClass/{}.png", "dataset/JPEGImages/{}"),
}
POLYGONS = ("labelme", "coco", "yolo")
COCO_FILE = "coco/annotations/instances_default.json"
VOC_LIST = "dataset/ImageSets/Segmentation/default.txt"
# Points that are all whole numbers are border pixels to many readers, ours among them.
OFF_GRID = 0.01  # pixels


def annotation_files(folder: Path, name: Path, kinds: Iterable[str]) -> dict[str, Path]:
    """The files of one picture by those kinds that are data sets; name: without extension."""
    names = {kind: FORMATS[kind][0].format(name.as_posix()) for kind in kinds if kind in FORMATS}
    if "yolo" in names:
        names["yolo"] = "/labels/".join(names["yolo"].rsplit("/images/", 1))
    return {kind: folder / text for kind, text in names.items()}


def check_new(folder: Path, names: Iterable[Path], kinds: Collection[str]) -> None:
    """Raise InputError where a file exists already, which may have been corrected by hand."""
    paths = [path for name in names for path in annotation_files(folder, name, kinds).values()]
    if "coco" in kinds and paths:
        paths.append(folder / COCO_FILE)
    if there := [path for path in paths if path.exists()]:
        raise InputError(
            f"{there[0]} is there already, perhaps corrected by hand, and would be replaced; "
            "choose another --out-dir, or remove its folder"
        )


class AnnotationFiles:
    """Writes data sets of some kinds of FORMATS into a folder; other kinds are passed over."""

    def __init__(self, folder: Path, classes: Classes, kinds: Collection[str], tracing: Tracing):
        self.folder, self.classes, self.tracing = folder, classes, tracing
        self.kinds = [kind for kind in FORMATS if kind in kinds]
        shown = [k for k, name in enumerate(classes.names) if not is_background(name)]
        self._numbers = {k: number for number, k in enumerate(shown)}  # of YOLO; COCO's plus one
        self._counts = np.zeros(3, np.int64)  # parts, parts left out, ignored pixels
        for name in classes.names if "dataset" in kinds else ():
            if ":" in name or name.startswith("#"):
                raise InputError(
                    f"--save dataset: its labelmap.txt cannot hold the name {name}; save labelme, "
                    "coco or yolo"
                )

    def add(self, path: Path, name: Path, labels: np.ndarray) -> None:
        """Write the files of a picture; labels: (H, W) uint8 as it is upright."""
        if not self.kinds:
            return
        files = annotation_files(self.folder, name, self.kinds)
        picture = f"{name.as_posix()}{path.suffix}"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read again ({error.strerror})") from error
        for kind in self.kinds:
            write_atomically(self.folder / FORMATS[kind][1].format(picture), content)
        if "dataset" in files:
            write_mask(files.pop("dataset"), labels, self.classes.palette)
        if files:
            ids = [*self._numbers, IGNORE_INDEX] if "labelme" in files else self._numbers
            parts, left_out = trace(labels, ids, self.tracing)
            self._counts += len(parts), left_out, np.count_nonzero(labels == IGNORE_INDEX)
        for kind, file in files.items():
            content = getattr(self, f"_{kind}")(picture, labels.shape, parts)
            write_atomically(file, content.encode())

    def _labelme(self, picture: str, size: tuple[int, int], parts: list[Part]) -> str:
        names = dict(enumerate(self.classes.names)) | {IGNORE_INDEX: IGNORE_LABEL}
        about = {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}}
        shapes = [
            {"label": names[part.class_id], "points": _points(part, size)} | about for part in parts
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None}
        content |= {"imagePath": Path(picture).name, "imageHeight": size[0], "imageWidth": size[1]}
        return json.dumps(content)

    def _yolo(self, picture: str, size: tuple[int, int], parts: list[Part]) -> str:
        rows = [
            (str(self._numbers[p.class_id]), *(f"{n:.7g}" for n in (p.ring / size[::-1]).ravel()))
            for p in parts
            if p.class_id in self._numbers
        ]
        return "".join(" ".join(row) + "\n" for row in rows)

    def _coco(self, picture: str, size: tuple[int, int], parts: list[Part]) -> str:
        image = {"file_name": picture, "height": size[0], "width": size[1]}
        annotations = []
        for part in parts:
            if part.class_id in self._numbers:
                low, high = part.ring.min(axis=0), part.ring.max(axis=0)
                annotations.append({
                    "category_id": self._numbers[part.class_id] + 1, "iscrowd": 0,
                    "segmentation": [np.ravel(_points(part, size)).tolist()], "area": part.area,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                })  # fmt: skip
        return json.dumps({"image": image, "annotations": annotations})

    def begin(self, todo: Collection[Path]) -> None:
        """Write what data sets say of their classes. The main process does, if there is work."""
        for name, text in self._of_classes().items() if is_main() and todo else ():
            write_atomically(self.folder / name, text.encode())

    def finish(self, names: Collection[Path], zipped: bool) -> None:
        """Write what lists the pictures whose files are there; say what is lost.

        names: of all pictures; none where no file is new. zipped: pack each data set too. All
        processes call it.
        """
        num_parts, left_out, ignored = sum(gathered(self._counts))
        if not (is_main() and self.kinds and names):
            return
        files = {name: annotation_files(self.folder, name, self.kinds).values() for name in names}
        done = [name for name in names if all(path.is_file() for path in files[name])]
        if "coco" in self.kinds:
            write_atomically(self.folder / COCO_FILE, json.dumps(self._joined(done)).encode())
        if "dataset" in self.kinds:
            listed = "".join(f"{name.as_posix()}\n" for name in done)
            write_atomically(self.folder / VOC_LIST, listed.encode())
        if set(self.kinds) & set(POLYGONS):
            print(
                f"{num_parts} polygons; {left_out} parts smaller than {self.tracing.min_area} "
                "pixels (--min-area) are left out"
            )
        if ignored and (unable := [kind for kind in ("coco", "yolo") if kind in self.kinds]):
            print(
                f"{ignored} ignored pixels: {' and '.join(unable)} cannot hold such; no polygon is "
                "there, as on background"
            )
        for kind in self.kinds if zipped else ():
            print(_pack(self.folder / kind))

    def _of_classes(self) -> dict[str, str]:
        """The files that name the classes, by their names below the folder."""
        names, palette = self.classes.names, self.classes.palette
        content = {"names": [*names], "VIS_LABEL_MAP": [[*colour] for colour in palette]}
        if not any(map(is_background, names)):  # what no polygon covers is ignored
            content["names"].insert(0, BACKGROUND_NAMES[0])
            content["VIS_LABEL_MAP"].insert(0, [0, 0, 0])
            content["ignore_classes"] = [BACKGROUND_NAMES[0]]
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        files = {f"{kind}/dataset.yaml": text for kind in self.kinds if kind in POLYGONS}
        if "yolo" in self.kinds:  # which wants a folder to validate on too; ours splits one off
            shown = {number: names[k] for k, number in self._numbers.items()}
            content = {"path": ".", "train": "images", "names": shown}
            files["yolo/data.yaml"] = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        if "dataset" in self.kinds:
            colours = colour_table(palette)[[*range(len(names)), IGNORE_INDEX]].tolist()
            listed = zip((*names, IGNORE_LABEL), colours, strict=True)
            lines = [f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in listed]
            files["dataset/labelmap.txt"] = "# label:color_rgb:parts:actions\n" + "".join(lines)
        return files

    def _joined(self, names: list[Path]) -> dict:
        """The content of COCO_FILE from its parts."""
        images, annotations = [], []
        for number, name in enumerate(names, 1):
            content = json.loads(annotation_files(self.folder, name, ["coco"])["coco"].read_bytes())
            images.append({"id": number} | content["image"])
            for annotation in content["annotations"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number} | annotation)
        known = self._numbers.items()
        categories = [{"id": number + 1, "name": self.classes.names[k]} for k, number in known]
        return {"images": images, "annotations": annotations, "categories": categories}


def _points(part: Part, size: tuple[int, int]) -> list[list[float]]:
    """[x, y] pairs that are not all whole numbers."""
    return np.minimum(part.ring + OFF_GRID, size[::-1]).round(2).tolist()


def _pack(folder: Path) -> Path:
    """Write FOLDER.zip of what is in a folder."""
    path = folder.with_suffix(".zip")
    remove_leftovers(path.parent, path.name)
    try:
        os.replace(shutil.make_archive(str(temporary_path(path)), "zip", folder), path)
    except OSError as error:
        raise InputError(f"{path}: cannot write ({error.strerror})") from error
    return path
