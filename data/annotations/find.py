"""Find out which annotation format a folder holds, read it, or say how to export another."""

import json
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from data.annotations.coco import is_coco, read_coco
from data.annotations.cvat import is_cvat, read_cvat
from data.annotations.dataset import AnnotationSet
from data.annotations.label_studio import is_label_studio, read_label_studio
from data.annotations.labelme import is_labelme, read_labelme
from data.annotations.via import is_via, read_via
from data.annotations.yolo import BOXES, POLYGONS, find_names, find_yaml, label_files, read_yolo
from data.inventory import Inventory
from data.labels.class_files import CLASS_FILES
from utils import InputError, progress

FORMATS = (
    ("COCO", is_coco, read_coco),
    ("labelme", is_labelme, read_labelme),
    ("Label Studio", is_label_studio, read_label_studio),
    ("VGG VIA", is_via, read_via),
    ("CVAT XML", is_cvat, read_cvat),
)
SHOWN = 3
# Formats that are recognised but not read: how to export what is.
ADVICE = {
    "VGG VIA 3": "export its annotations as COCO JSON, or annotate with VIA 2",
    "Supervisely": "export with 'Export as masks' or 'Export to COCO'",
    "Datumaro JSON": "export as COCO or as segmentation masks",
    "V7 Darwin JSON": "export as COCO or as semantic masks",
    "Segment Anything JSON": "its masks have no classes; label them, and export COCO JSON",
    "Pascal VOC boxes": "boxes are no masks; export segmentation masks or COCO JSON",
    "CVAT XML with the tracks of a video": "export the task from CVAT as 'CVAT for images 1.1' "
    "with its images",
    "COCO without instances": "export COCO JSON with instances; a panoptic set's PNGs are masks",
    "Label Studio JSON": "export 'Brush labels to PNG' beside it, or 'COCO with images'",
    BOXES: "export segmentation labels, whose lines are polygons",
    POLYGONS: "list the names of their classes in a classes.txt here, a line each",
}
# The keys by which JSON of formats that are not read is known.
KEYS = {
    "VGG VIA 3": {"project", "file", "view", "metadata"},
    "Supervisely": {"objects", "size"},
    "Datumaro JSON": {"categories", "items"},
    "V7 Darwin JSON": {"item", "annotations"},
    "Segment Anything JSON": {"image", "annotations"},
}


def read_annotations(inventory: Inventory) -> AnnotationSet | None:
    """The data set that annotation files describe, or None if there are none.

    Raises InputError where no shape at all can be read, with the reasons, and for formats that are
    known but not read.
    """
    found = _read_any(inventory)
    if found is None:
        return None
    found.add_labels(sorted({s.label for a in found.by_picture.values() for s in a.shapes}))
    found.notes += [f"{len(some)} {what}, first: {some[0]}" for what, some in found.seen.items()]
    known = set(inventory.pictures)
    reasons = [*found.problems, *(lost for lost in found.unmatched if lost[0] not in known)]
    if reasons and not found.labels:
        shown = "\n  ".join(f"{path}: {reason}" for path, reason in reasons[:SHOWN])
        raise InputError(f"{found.layout}: {len(reasons)} problems, first:\n  {shown}")
    return found


def _read_any(inventory: Inventory) -> AnnotationSet | None:
    if described := find_yaml(inventory):
        return read_yolo(inventory, *described)
    texts = [p for p in inventory.texts if p.suffix.lower() in (".json", ".xml")]
    paths = [path for path in texts if path.name not in CLASS_FILES]
    contents = {path: _load(path) for path in progress(paths, "annotations", len(paths))}
    for name, is_of_format, read in FORMATS:
        if files := {path: content for path, content in contents.items() if is_of_format(content)}:
            layout = f"{name} ({next(iter(files)).relative_to(inventory.root)})"
            found = AnnotationSet(layout, inventory)
            read(found, files)
            if found.by_picture or found.unmatched or found.problems or found.notes or found.seen:
                return found
    if described := find_names(inventory):
        return read_yolo(inventory, *described)
    kinds = {path: _kind_of(content) for path, content in contents.items()}
    kinds |= label_files(inventory)
    for path, kind in kinds.items():
        if kind:
            raise InputError(f"{path}: {kind} cannot be read as masks; {ADVICE[kind]}")
    return None


def _load(path: Path) -> object:
    """What a JSON or XML file holds."""
    try:
        if path.suffix.lower() == ".xml":
            return ElementTree.parse(path).getroot()
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            content.pop("imageData", None)  # labelme's copy of the picture
        return content
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; save it with the encoding UTF-8") from error
    except (OSError, ValueError, LookupError, RecursionError, ElementTree.ParseError) as error:
        kind = path.suffix[1:].upper()
        raise InputError(f"{path}: not a readable {kind} file ({error})") from error


def _kind_of(content: object) -> str | None:
    """The name in ADVICE of what a JSON or XML file holds."""
    if isinstance(content, ElementTree.Element):
        if content.tag == "annotations" and content.find("track") is not None:
            return "CVAT XML with the tracks of a video"
        return "Pascal VOC boxes" if content.tag == "annotation" else None
    if is_label_studio(content):
        return "Label Studio JSON"
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("annotations"), list) and isinstance(content.get("images"), list):
        return "COCO without instances"
    return next((name for name, keys in KEYS.items() if keys <= content.keys()), None)
