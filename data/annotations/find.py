"""Find out which annotation format a folder holds, read it, or say how to export another."""

import json
from collections.abc import Mapping
from pathlib import Path

from data.annotations.coco import is_coco, read_coco
from data.annotations.cvat import load_cvat, read_cvat
from data.annotations.dataset import AnnotationSet, PictureIndex, split_of
from data.annotations.label_studio import is_label_studio, read_label_studio
from data.annotations.labelme import is_labelme, read_labelme
from data.annotations.via import is_via, read_via
from data.annotations.yolo import SizeOf, load_data_yaml, read_yolo
from data.labels.class_files import CLASS_FILES, find_class_file, load_content, read_classes
from utils import InputError, progress

JSON_FORMATS = (
    (is_coco, read_coco), (is_labelme, read_labelme), (is_label_studio, read_label_studio),
)  # fmt: skip
HIDDEN = (".", "@", "__MACOSX")
SHOWN = 3
# Formats that are recognised but not read: how to export what is.
ADVICE = {
    "VGG VIA 3": "export its annotations as COCO JSON, or annotate with VIA 2",
    "Supervisely": "export with 'Export as masks' or 'Export to COCO'",
    "Pascal VOC boxes": "boxes are no masks; export segmentation masks or COCO JSON",
    "COCO panoptic": "use its PNG files as masks, or export instances as COCO JSON",
    "COCO without segmentations": "export COCO JSON with instances",
    "Label Studio JSON": "export 'Brush labels to PNG' beside it, or 'COCO with images'",
    "YOLO label files": "list the names of their classes in a classes.txt here, a line each",
}


def read_annotations(
    root: Path, pictures: list[Path], size_of: SizeOf, classes: str | Path | None = None
) -> AnnotationSet | None:
    """The data set that annotation files below root describe, or None if there are none.

    classes: a class file or a preset, by default the class file in root. Its names tell which of
    several attributes is the class.
    Raises InputError where no shape at all can be read, with the reasons.
    """
    found = _read_any(root, pictures, size_of, classes or find_class_file(root))
    if found and not found.labels:
        known = set(pictures)
        reasons = [*found.problems, *(lost for lost in found.unmatched if lost[0] not in known)]
        if reasons:
            shown = "\n  ".join(f"{path}: {reason}" for path, reason in reasons[:SHOWN])
            raise InputError(f"{found.layout}: {len(reasons)} problems, first:\n  {shown}")
    return found


def _read_any(
    root: Path, pictures: list[Path], size_of: SizeOf, classes: str | Path | None
) -> AnnotationSet | None:
    if described := _yolo_yaml(root):
        return read_yolo(root, *described, pictures, size_of)
    files = _load_json_files(root)
    index = PictureIndex(root, pictures)
    for is_of_format, read in JSON_FORMATS:
        chosen = {path: content for path, content in files.items() if is_of_format(content)}
        if chosen and (found := read(root, chosen, index)):
            return found
    if projects := {path: content for path, content in files.items() if is_via(content)}:
        return read_via(
            root, projects, index, read_classes(classes).classes.names if classes else ()
        )
    if exports := load_cvat(_files(root, "*.xml")):
        return read_cvat(root, exports, index)
    if described := _yolo_names(root, pictures):
        return read_yolo(root, *described, pictures, size_of)
    _refuse_others(root, files)
    return None


def _yolo_yaml(root: Path) -> tuple[Path, dict] | None:
    """The YAML file in root that names classes and folders of YOLO, and what it holds."""
    paths = sorted(root.glob("[!.]*"))
    found = {path: content for path in paths if (content := load_data_yaml(path))}
    usual = [path for path in found if path.stem == "data"]
    if len(found) > 1 and not usual:
        shown = " and ".join(path.name for path in found)
        raise InputError(f"{root}: {shown} both name classes and folders; remove all but one")
    return next(((path, found[path]) for path in [*usual, *found]), None)


def _yolo_names(root: Path, pictures: list[Path]) -> tuple[Path, dict] | None:
    """A file of class names beside YOLO's label files, and the data.yaml that it stands for."""
    data_yaml = root / "data.yaml"
    path = data_yaml if data_yaml.is_file() else find_class_file(root)
    content = load_content(path) if path and _yolo_labels(root) else None
    if not isinstance(content, dict) or "names" not in content:
        return None
    places = {picture.parent for picture in pictures}
    folders: dict[str, list[str]] = {}
    for place in sorted(p for p in places if not places & {*p.parents}):
        below = place.relative_to(root)
        folders.setdefault(split_of(below) or "train", []).append(str(below))
    return path, {"names": content["names"], **folders}


def _yolo_labels(root: Path) -> list[Path]:
    """Of the first files below labels/, those that hold numbers as YOLO's do."""
    found = []
    for path in _files(root, "labels/**/*.txt")[:SHOWN]:
        words = path.read_text(encoding="utf-8", errors="replace").split()
        if words and all(word.replace(".", "", 1).isdigit() for word in words[:5]):
            found.append(path)
    return found


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
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text; save it with the encoding UTF-8") from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a readable JSON file ({error})") from error
    return loaded


def _refuse_others(root: Path, files: Mapping[Path, object]) -> None:
    """Raise InputError if a known format that is not read is here. files: of JSON."""
    kinds = {path: _kind_of_json(content) for path, content in files.items()}
    for path in _files(root, "*.xml")[:SHOWN]:
        if b"<annotation" in path.read_bytes()[:4096]:
            kinds[path] = "Pascal VOC boxes"
    kinds |= dict.fromkeys(_yolo_labels(root), "YOLO label files")
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
    if {"project", "file", "view", "metadata"} <= content.keys():
        return "VGG VIA 3"
    if isinstance(content.get("objects"), list) and "size" in content:
        return "Supervisely"
    return None
