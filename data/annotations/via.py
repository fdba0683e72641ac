"""VGG VIA 1 and 2: annotations as JSON (via_region_data.json), and project files.

Overlaps: later regions of a picture cover earlier ones. Background: what no region covers, and
pictures without regions. Polylines are closed; points are left out. The class is a region attribute
that the annotator chose.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from data.annotations.dataset import AnnotationSet, PictureIndex, split_of
from data.annotations.shapes import Annotation, Shape, ellipse, polygon, rectangle
from data.labels.class_checks import class_name
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


def read_via(
    root: Path, files: Mapping[Path, dict], pictures: PictureIndex, classes: Collection[str] = ()
) -> AnnotationSet:
    """The pictures of VIA's files. classes: names that tell which attribute is the class."""
    found = AnnotationSet(f"VGG VIA ({next(iter(files)).relative_to(root)})")
    try:
        entries = [(path, e) for path in files for e in _pictures_in(files[path]).values()]
        attribute = _class_attribute(root, files, list(_attributes(entries)), classes)
        labels: set[str] = set()
        left_out: Counter[str] = Counter()
        for path, entry in entries:
            _read_picture(found, path, entry, pictures, attribute, left_out)
        for annotation in found.annotations:
            labels |= {shape.label for shape in annotation.shapes}
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{next(iter(files))}: not a file of VIA (near {error})") from error
    found.add_labels(sorted(labels))
    for kind, count in left_out.items():
        found.notes.append(
            f"{count} regions of the shape {kind} are left out, as they have no area"
        )
    empty = [annotation.image for annotation in found.annotations if not annotation.shapes]
    if empty:
        found.notes.append(
            f"{len(empty)} pictures have no region, so that all is background, first: {empty[0]}"
        )
    return found


def _regions(entry: Mapping) -> list[Mapping]:
    """The regions of a picture; VIA 1 numbers them."""
    regions = entry["regions"]
    return list(regions.values()) if isinstance(regions, Mapping) else regions


def _attributes(entries: list[tuple[Path, Mapping]]) -> Iterator[dict[str, str]]:
    """{attribute: value} of each region; empty values are left out."""
    for _, entry in entries:
        for region in _regions(entry):
            yield _values(region)


def _values(region: Mapping) -> dict[str, str]:
    """{attribute: text}; of boxes that are ticked, {"apple": true}, their names."""
    found = {}
    for name, value in (region.get("region_attributes") or {}).items():
        if isinstance(value, Mapping):
            value = ", ".join(str(key) for key, ticked in value.items() if ticked)
        if str(value).strip() and value is not None:
            found[name] = class_name(str(value))
    return found


def _class_attribute(
    root: Path, files: Mapping, regions: list[dict[str, str]], classes: Collection[str]
) -> str | None:
    """The attribute that names the class, or None if no region has any.

    Raises InputError where several could be it and neither agree nor are told apart by the classes.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for region in regions:
        for name, value in region.items():
            values[name].append(value)
    kinds = {name: set(seen) for name, seen in values.items()}
    few = [name for name, seen in kinds.items() if len(seen) <= min(FEW, len(values[name]) - 1)]
    few = few or list(values)  # with a value of its own in each region none is likelier
    if named := [name for name, seen in kinds.items() if seen <= set(classes)]:
        few = named
    if len(few) < 2 or all(len({r.get(name) for name in few}) == 1 for r in regions):
        return few[0] if few else None
    shown = "; ".join(f"{name}: {first_of(sorted(kinds[name]), 4)}" for name in few)
    names = json.dumps(["background", *sorted(kinds[few[0]])], ensure_ascii=False)
    raise InputError(
        f"{next(iter(files))}: its regions have {len(few)} attributes that could be the class "
        f"({shown}); write the values of one of them into {root / 'dataset.yaml'}, such as "
        f"`names: {names}`"
    )


def _read_picture(
    found: AnnotationSet,
    path: Path,
    entry: Mapping,
    pictures: PictureIndex,
    attribute: str | None,
    left_out: Counter[str],
) -> None:
    statement = path.relative_to(pictures.root)
    name = unquote(str(entry["filename"]))
    try:
        image = pictures.named(name, path.parent, split_of(statement))
    except ValueError as error:
        found.unmatched.append((path, str(error)))
        return
    shapes = []
    for number, region in enumerate(_regions(entry), 1):
        kind = region["shape_attributes"].get("name")
        try:
            if kind == "point":
                left_out[kind] += 1
                continue
            label = _values(region).get(attribute) if attribute else ONLY_CLASS
            if label is None:
                raise ValueError(f"has no {attribute}, which is the class; fill it in")
            shapes.append(_shape(label, kind, region["shape_attributes"]))
        except (ValueError, KeyError, TypeError) as error:
            found.problems.append((path, f"{image.name}: region {number}: {error}"))
    split = pictures.split_of(image, statement)
    found.add(Annotation(image, path, split, None, shapes))


def _shape(label: str, kind: str, shape: Mapping) -> Shape:
    if kind in ("polygon", "polyline"):
        return polygon(label, np.stack([shape["all_points_x"], shape["all_points_y"]], axis=-1))
    if kind == "rect":
        x, y = float(shape["x"]), float(shape["y"])
        return rectangle(label, (x, y, x + float(shape["width"]), y + float(shape["height"])))
    if kind in ("circle", "ellipse"):
        radii = (shape["r"],) * 2 if kind == "circle" else (shape["rx"], shape["ry"])
        return ellipse(label, (shape["cx"], shape["cy"]), radii, float(shape.get("theta", 0)))
    raise ValueError(f"the shape {kind} is not known")
