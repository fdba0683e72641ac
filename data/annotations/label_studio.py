"""Label Studio's PNG export: a PNG for each region, and the JSON that names the pictures.

Overlaps: regions are drawn by falling area, small ones on top. Background: what no region covers.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from data.annotations.dataset import AnnotationSet, composed, reading
from data.annotations.shapes import Shape
from data.images import upright_size
from data.labels.class_entries import class_name
from utils import InputError

TASK = re.compile(r"task-(\d+)-annotation-")  # task-7-annotation-12-by-1-tag-Road sign-0.png


def is_label_studio(content: object) -> bool:
    """Whether a JSON file is Label Studio's list of tasks."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, Mapping) and "data" in first and "annotations" in first


def read_label_studio(found: AnnotationSet, files: Mapping[Path, list]) -> None:
    """The pictures of the tasks that are done, if there are PNGs of regions."""
    found.small_on_top = True
    regions: dict[str, list[Path]] = defaultdict(list)  # by task
    for region in found.inventory.pictures:
        if match := TASK.match(region.stem):
            regions[match[1]].append(region)
    for path, tasks in files.items() if regions else ():
        with reading(path, "Label Studio's list of tasks"):
            for task in tasks:
                _read_task(found, path, task, regions[str(task["id"])])


def _read_task(found: AnnotationSet, path: Path, task: Mapping, files: Sequence[Path]) -> None:
    """Add the picture of a task with its regions, one a file."""
    name = f"task {task['id']}"
    size = None
    with suppress(InputError):  # a damaged file is a problem when it is drawn
        size = upright_size(files[0]) if files else None
    picture = found.find(path, _names(task), entry=f"{name}: ", size=size)
    if not picture:
        return
    if all(done.get("was_cancelled") for done in task["annotations"]):
        what = "tasks are left out, as nobody has done them"
        found.seen[what].append(f"{name} of {path} ({picture.image.name})")
        return
    if picture.image in found.by_picture:
        found.seen["tasks are left out, as others have their pictures"].append(f"{name} of {path}")
        return
    labels = _labels(task)
    if labels and not files:
        found.problems.append((path, f"{name} has regions, but no PNG is named task-{task['id']}-"))
    found.add(picture, ((str(file), file) for file in files), partial(_shapes, labels))


def _shapes(labels: Collection[str], file: Path) -> Iterator[Shape]:
    """The region in a file, whose name ends with its label and a number."""
    stem = composed(re.sub(r"-\d+$", "", file.stem))
    fitting = [label for label in labels if stem.endswith(f"-{label}")]
    if not fitting:
        raise ValueError("no label of its task is in its name")
    yield Shape(max(fitting, key=len), path=file)


def _names(task: Mapping) -> Iterator[str]:
    """What may be the name of a task's picture: its data hold paths or addresses.

    Uploads get a prefix of eight digits and a dash.
    """
    for address in map(str, task["data"].values()):
        names = [address]
        with suppress(ValueError):  # of a malformed address
            parts = urlsplit(address)
            names += [*parse_qs(parts.query).get("d", []), unquote(parts.path)]
        for name in names:
            folder, _, last = name.rpartition("/")
            yield from (name, f"{folder}/{re.sub('^[0-9a-f]{8}-', '', last)}")


def _labels(task: Mapping) -> set[str]:
    """The labels of a task's regions: each result's value lists them under the tool's name."""
    results = [result for done in task["annotations"] for result in done.get("result", [])]
    lists = [
        listed
        for result in results
        for key, listed in result.get("value", {}).items()
        if key.endswith("labels") and isinstance(listed, list)
    ]
    return {class_name(label) for listed in lists for label in listed if isinstance(label, str)}
