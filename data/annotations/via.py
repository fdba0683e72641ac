"""VGG VIA 1 and 2: annotations as JSON (via_region_data.json), and project files.

Overlaps: later regions of a picture cover earlier ones. Background: what no region covers, and
pictures without regions. Polylines are closed; points are left out. The class is a region attribute
that the annotator chose.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from data.annotations.dataset import AnnotationSet, reading
from data.annotations.shapes import Shape, ellipse, polygon, rectangle
from data.labels.class_entries import class_name
from data.labels.class_files import find_class_file, read_classes
from utils import InputError, first_of

ONLY_CLASS = "object"  # of regions without attributes
FEW = 64  # different values that an attribute of classes may have


def is_via(content: object) -> bool:
    """Whether a JSON file holds VIA's pictures, bare or in a project."""
    if not isinstance(content, Mapping):
        return False
    first = next(iter(_pictures_in(content).values()), None)
    return isinstance(first, Mapping) and "regions" in first and "filename" in first


def _pictures_in(content: Mapping) -> Mapping:
    inside = content.get("_via_img_metadata", content)
    return inside if isinstance(inside, Mapping) else {}


def read_via(found: AnnotationSet, files: Mapping[Path, dict]) -> None:
    """The pictures of VIA's files. The names in a class file tell which attribute is the class."""
    with reading(next(iter(files)), "a file of VIA"):
        entries = [(path, e) for path in files for e in _pictures_in(files[path]).values()]
        attributes = [_values(region) for _, entry in entries for region in _regions(entry)]
        attribute = _class_attribute(found.inventory.root, next(iter(files)), attributes)
        labels = {values[attribute] for values in attributes if attribute in values}
        filled = {path for path, entry in entries if any(map(_values, _regions(entry)))}
        for path, entry in entries:
            if not (picture := found.find(path, [unquote(str(entry["filename"]))])):
                continue
            image, regions = picture.image, enumerate(_regions(entry), 1)
            if not entry["regions"]:
                found.seen["pictures have no region, so that all is background"].append(image)
            only = next(iter(labels)) if len(labels) == 1 and path not in filled else None
            if only and entry["regions"]:
                found.seen[f"pictures are of files without a class, taken for {only}"].append(image)
            named = ((f"{image.name}: region {number}", region) for number, region in regions)
            found.add(picture, named, partial(_shapes, found, image, attribute, only))


def _regions(entry: Mapping) -> list[Mapping]:
    """The regions of a picture; VIA 1 numbers them."""
    regions = entry["regions"]
    return list(regions.values()) if isinstance(regions, Mapping) else regions


def _values(region: Mapping) -> dict[str, str]:
    """{attribute: text}; of boxes that are ticked, {"apple": true}, their names."""
    found = {}
    for name, value in (region.get("region_attributes") or {}).items():
        if isinstance(value, Mapping):
            value = ", ".join(str(key) for key, ticked in value.items() if ticked)
        if str(value).strip() and value is not None:
            found[name] = class_name(str(value))
    return found


def _class_attribute(root: Path, file: Path, regions: Collection[dict[str, str]]) -> str | None:
    """The attribute that names the class, or None if no region has any.

    Raises InputError where several could be it and neither agree nor are told apart by the classes.
    """
    names = {name for region in regions for name in region}
    values = {name: [region[name] for region in regions if name in region] for name in names}
    kinds = {name: set(seen) for name, seen in sorted(values.items())}
    few = [name for name, seen in kinds.items() if len(seen) <= min(FEW, len(values[name]) - 1)]
    few = few or list(kinds)  # with a value of its own in each region none is likelier
    class_file = find_class_file(root)
    classes = set(read_classes(class_file).classes.names) if class_file else set()
    few = [name for name, seen in kinds.items() if seen <= classes] or few
    few = sorted({tuple(r.get(name) for r in regions): name for name in reversed(few)}.values())
    whole = [name for name in few if len(values[name]) == len(regions)]
    if any(len(kinds[name]) > 1 for name in whole):  # VIA's image_quality may be of some
        few = [name for name in few if name in whole or len(kinds[name]) > 1]
    if len(few) < 2:
        return few[0] if few else None
    shown = "; ".join(f"{name}: {first_of(sorted(kinds[name]), 4)}" for name in few)
    example = json.dumps(["background", *sorted(kinds[few[0]])], ensure_ascii=False)
    raise InputError(
        f"{file}: its regions have {len(few)} attributes that could be the class ({shown}); write "
        f"the values of one of them into {root / 'dataset.yaml'}, such as `names: {example}`"
    )


def _shapes(
    found: AnnotationSet, image: Path, attribute: str | None, only: str | None, region: Mapping
) -> Iterator[Shape]:
    """The shape of a region, whose class an attribute names, or is the only one that there is."""
    shape = region["shape_attributes"]
    kind = shape.get("name")
    if kind == "point":
        what = f"regions of the shape {kind} are left out, as they have no area"
        found.seen[what].append(image)
        return
    label = _values(region).get(attribute, only) if attribute else ONLY_CLASS
    if label is None:
        raise ValueError(f"has no {attribute}, which is the class; fill it in")
    if kind in ("polygon", "polyline"):
        yield polygon(label, np.stack([shape["all_points_x"], shape["all_points_y"]], axis=-1))
    elif kind == "rect":
        x, y = float(shape["x"]), float(shape["y"])
        yield rectangle(label, (x, y, x + float(shape["width"]), y + float(shape["height"])))
    elif kind in ("circle", "ellipse"):
        radii = (shape["r"],) * 2 if kind == "circle" else (shape["rx"], shape["ry"])
        yield ellipse(label, (shape["cx"], shape["cy"]), radii, float(shape.get("theta", 0)))
    else:
        raise ValueError(f"the shape {kind} is not known")
