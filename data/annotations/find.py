"""Find out which annotation format a folder holds, read it, or say how to export another."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from data.annotations.coco import is_coco, read_coco
from data.annotations.dataset import AnnotationSet, PictureIndex
from data.annotations.label_studio import is_label_studio, read_label_studio
from data.annotations.labelme import is_labelme, read_labelme
from data.annotations.yolo import SizeOf, is_yolo, read_yolo
from data.labels.class_files import CLASS_FILES
from utils import InputError, progress

YAML_FILES = ("data.yaml", "data.yml")
JSON_FORMATS = (
    (is_coco, read_coco), (is_labelme, read_labelme), (is_label_studio, read_label_studio),
)  # fmt: skip
HIDDEN = (".", "@", "__MACOSX")
SHOWN = 3
# Formats that are recognised but not read: how to export what is.
ADVICE = {
    "VGG VIA": "export its annotations as COCO JSON",
    "Supervisely": "export with 'Export as masks' or 'Export to COCO'",
    "CVAT XML": "export 'Segmentation mask 1.1' or 'COCO 1.0' from CVAT",
    "Pascal VOC boxes": "boxes are no masks; export segmentation masks or COCO JSON",
    "COCO panoptic": "use its PNG files as masks, or export instances as COCO JSON",
    "COCO without segmentations": "export COCO JSON with instances",
    "Label Studio JSON": "export 'Brush labels to PNG' beside it, or 'COCO with images'",
    "YOLO label files": "put the data.yaml with their class names beside them",
}


def read_annotations(root: Path, pictures: list[Path], size_of: SizeOf) -> AnnotationSet | None:
    """The data set that annotation files below root describe, or None if there are none.

    Raises InputError for formats that are recognised but not read.
    """
    for name in YAML_FILES:
        if (root / name).is_file() and is_yolo(content := _load_yaml(root / name)):
            return read_yolo(root, root / name, content, pictures, size_of)
    files = _load_json_files(root)
    index = PictureIndex(root, pictures)
    for is_of_format, read in JSON_FORMATS:
        chosen = {path: content for path, content in files.items() if is_of_format(content)}
        if chosen and (found := read(root, chosen, index)):
            return found
    _refuse_others(root, files)
    return None


def _files(root: Path, pattern: str) -> list[Path]:
    """The files below root whose name and folders are not hidden."""
    found = (path for path in root.rglob(pattern) if path.is_file())
    return sorted(
        p for p in found if not any(q.startswith(HIDDEN) for q in p.relative_to(root).parts)
    )


def _load_json_files(root: Path) -> dict[Path, object]:
    loaded = {}
    paths = [path for path in _files(root, "*.json") if path.name not in CLASS_FILES]
    for path in progress(paths, "annotations", len(paths)):
        try:
            loaded[path] = json.loads(path.read_bytes())
            if isinstance(loaded[path], dict):
                loaded[path].pop("imageData", None)  # labelme's copy of the picture
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a readable JSON file ({error})") from error
    return loaded


def _load_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None  # as a class file it will be read, and refused, later


def _refuse_others(root: Path, files: Mapping[Path, object]) -> None:
    """Raise InputError if a known format that is not read is here."""
    kinds = {path: _kind_of_json(content) for path, content in files.items()}
    for path in _files(root, "*.xml")[:SHOWN]:
        head = path.read_bytes()[:4096]
        if b"<annotations>" in head:
            kinds[path] = "CVAT XML"
        elif b"<annotation" in head:
            kinds[path] = "Pascal VOC boxes"
    for path in _files(root, "labels/**/*.txt")[:SHOWN]:
        words = path.read_text(encoding="utf-8", errors="replace").split()
        if words and all(word.replace(".", "", 1).isdigit() for word in words[:5]):
            kinds[path] = "YOLO label files"
    for path, kind in kinds.items():
        if kind:
            raise InputError(f"{path}: {kind} cannot be read as masks; {ADVICE[kind]}")


def _kind_of_json(content: object) -> str | None:
    """The name in ADVICE of what a JSON file holds."""
    if is_label_studio(content):
        return "Label Studio JSON"
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("annotations"), list) and isinstance(content.get("images"), list):
        return "COCO panoptic" if content.get("categories") else "COCO without segmentations"
    if "_via_img_metadata" in content or "_via_settings" in content:
        return "VGG VIA"
    first = next(iter(content.values()), None)
    if isinstance(first, Mapping) and "regions" in first and "filename" in first:
        return "VGG VIA"
    if isinstance(content.get("objects"), list) and "size" in content:
        return "Supervisely"
    return None
