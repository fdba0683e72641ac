"""Label Studio's PNG export: a PNG for each region, and the JSON that names the pictures.

Overlaps: regions are drawn by falling area, small ones on top. Background: what no region covers.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.annotations.dataset import AnnotationSet, PictureIndex, by_falling_area, composed
from data.annotations.shapes import Annotation, Shape
from data.labels.class_checks import class_name
from utils import InputError

TASK = re.compile(r"task-(\d+)-annotation-")  # task-7-annotation-12-by-1-tag-Road sign-0.png


def is_label_studio(content: object) -> bool:
    """Whether a JSON file is Label Studio's list of tasks."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, Mapping) and "data" in first and "annotations" in first


def read_label_studio(
    root: Path, files: Mapping[Path, list], pictures: PictureIndex
) -> AnnotationSet | None:
    """The pictures of the first file's tasks that have regions; None if there are no regions."""
    regions: dict[str, list[Path]] = defaultdict(list)  # by task
    for region in pictures.pictures:
        if match := TASK.match(region.stem):
            regions[match[1]].append(region)
    if not regions:
        return None
    path, tasks = next(iter(files.items()))
    found = AnnotationSet(f"Label Studio ({path.relative_to(root)})")
    labels: set[str] = set()
    for task in tasks:
        try:
            if str(task["id"]) in regions:
                labels |= _read_task(found, path, task, regions[str(task["id"])], pictures)
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not Label Studio's list of tasks (near {error})") from error
    found.add_labels(sorted(labels))
    return found


def _read_task(
    found: AnnotationSet, path: Path, task: Mapping, files: Sequence[Path], pictures: PictureIndex
) -> set[str]:
    """Add the picture of a task with its regions, one a file; returns the task's labels."""
    try:
        image = _picture(task, path, pictures)
    except ValueError as error:
        found.unmatched.append((path, f"task {task['id']}: {error}"))
        return set()
    labels = _labels(task)
    shapes = []
    for file in files:
        stem = composed(re.sub(r"-\d+$", "", file.stem))
        fitting = [name for name in labels if stem.endswith(f"-{name}")]
        if not fitting:
            found.problems.append((file, f"no label of task {task['id']} is in its name"))
            continue
        try:
            with Image.open(file) as mask:
                bitmap = np.array(mask.convert("L")) > 0
        except Exception as error:  # damaged files raise errors of many kinds
            found.problems.append((file, f"not a readable picture ({error})"))
            continue
        shapes.append(Shape(max(fitting, key=len), bitmap=bitmap))
    size = shapes[0].bitmap.shape if shapes else None
    found.add(Annotation(image, path, None, size, by_falling_area(shapes)))
    return labels


def _picture(task: Mapping, path: Path, pictures: PictureIndex) -> Path:
    """The picture of a task; ValueError if it is not there.

    Its data hold paths or addresses; uploads get a prefix of eight digits and a dash.
    """
    names = [str(value).rsplit("/", 1)[-1] for value in task["data"].values()]
    problem = ValueError("it names no picture")
    for name in [*names, *(re.sub(r"^[0-9a-f]{8}-", "", name) for name in names)]:
        try:
            return pictures.named(name, path.parent, None)
        except ValueError as error:
            problem = error
    raise problem


def _labels(task: Mapping) -> set[str]:
    """The labels of a task's regions: each result's value lists them under the tool's name."""
    values = [
        result.get("value", {}) for done in task["annotations"] for result in done.get("result", [])
    ]
    lists = [value for each in values for value in each.values() if isinstance(value, list)]
    return {class_name(label) for each in lists for label in each if isinstance(label, str)}
