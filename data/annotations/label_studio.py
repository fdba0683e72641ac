"""Label Studio's PNG export: a PNG for each region, and the JSON that names the pictures.

Overlaps: regions are drawn by falling area, small ones on top. Background: what no region covers.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from data.annotations.dataset import AnnotationSet, PictureIndex, composed
from data.annotations.shapes import Annotation, RegionFile
from data.images import upright_size
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
    """The pictures of the tasks that are done; None if there are no PNGs of regions."""
    regions: dict[str, list[Path]] = defaultdict(list)  # by task
    for region in pictures.pictures:
        if match := TASK.match(region.stem):
            regions[match[1]].append(region)
    if not regions:
        return None
    found = AnnotationSet(f"Label Studio ({next(iter(files)).relative_to(root)})")
    labels: set[str] = set()
    left_out: dict[str, list[str]] = defaultdict(list)  # by the reason
    for path, tasks in files.items():
        for task in tasks:
            try:
                labels |= _read_task(found, path, task, regions, pictures, left_out)
            except (LookupError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}: not Label Studio's list of tasks (near {error})"
                ) from error
    found.add_labels(sorted(labels))
    for reason, tasks in left_out.items():
        found.notes.append(f"{len(tasks)} tasks are left out, {reason}, first: {tasks[0]}")
    return found


def _read_task(
    found: AnnotationSet,
    path: Path,
    task: Mapping,
    regions: Mapping[str, Sequence[Path]],
    pictures: PictureIndex,
    left_out: Mapping[str, list[str]],
) -> set[str]:
    """Add the picture of a task with its regions, one a file; returns the task's labels."""
    number = str(task["id"])
    name = f"task {number} of {path}"
    try:
        image = _picture(task, path, pictures)
    except ValueError as error:
        found.unmatched.append((path, f"task {number}: {error}"))
        return set()
    if not any(not done.get("was_cancelled") for done in task["annotations"]):
        left_out["as nobody has done them"].append(f"{name} ({image.name})")
        return set()
    if image in found.files:
        left_out["as others have their pictures"].append(name)
        return set()
    labels, files = _labels(task), regions.get(number, ())
    if labels and not files:
        found.problems.append(
            (path, f"task {number} has regions, but no PNG is named task-{number}-")
        )
    shapes = []
    for file in files:
        stem = composed(re.sub(r"-\d+$", "", file.stem))
        fitting = [name for name in labels if stem.endswith(f"-{name}")]
        if fitting:
            shapes.append(RegionFile(max(fitting, key=len), file))
        else:
            found.problems.append((file, f"no label of task {number} is in its name"))
    size = None
    with suppress(InputError):  # a damaged file is a problem when it is drawn
        size = upright_size(shapes[0].path) if shapes else None
    split = pictures.split_of(image, path.relative_to(pictures.root))
    found.add(Annotation(image, path, split, size, shapes, small_on_top=True))
    return labels


def _picture(task: Mapping, path: Path, pictures: PictureIndex) -> Path:
    """The picture of a task; ValueError if it is not there.

    Its data hold paths or addresses; uploads get a prefix of eight digits and a dash.
    """
    names = []
    for address in map(str, task["data"].values()):
        names.append(address)
        with suppress(ValueError):  # of a malformed address
            parts = urlsplit(address)
            names += [*parse_qs(parts.query).get("d", []), unquote(parts.path)]
    problem = None
    for name in names:
        folder, _, last = name.rpartition("/")
        for form in (name, f"{folder}/{re.sub('^[0-9a-f]{8}-', '', last)}"):
            try:
                return pictures.named(form, path.parent, None)
            except ValueError as error:
                problem = problem or error
    raise problem or ValueError("it names no picture")


def _labels(task: Mapping) -> set[str]:
    """The labels of a task's regions: each result's value lists them under the tool's name."""
    values = [
        result.get("value", {}) for done in task["annotations"] for result in done.get("result", [])
    ]
    lists = [
        value
        for each in values
        for key, value in each.items()
        if key.endswith("labels") and isinstance(value, list)
    ]
    return {class_name(label) for each in lists for label in each if isinstance(label, str)}
