"""What decides a job's results: settings, model, classes and files, as plain data."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.checkpoints import short

ARCHIVE_NS = 2 * 10**9  # zip files store times of change in steps of 2 s


@dataclass(frozen=True)
class JobRecord:
    """All that a job's results depend on. Results of two jobs can be mixed only if it is equal.

    `train.py --resume` and `infer_image.py --skip-existing` refuse or repeat what was made with
    another record; cached features lie in a folder named by its `key`. All values are those that
    JSON has: None, bool, int, float, str, lists, and dicts with str keys.

    settings: flags and constants by name. model: fingerprint of the weights that are not trained.
    classes: how mask values map to classes. files: size in bytes and time of change in ns of each
    file read, by its name below `root`, in the order of reading (see `record_files`).
    """

    settings: dict
    model: str = ""
    classes: dict = field(default_factory=dict)
    root: str = ""
    files: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("settings", "classes"):  # as they come back from a file: tuples become lists
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))

    @property
    def key(self) -> str:
        """16 hex digits that tell records apart."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | None) -> "JobRecord":
        """The record that `to_json` wrote. Raises ValueError for anything else."""
        if text is None:
            raise ValueError("no record of a job")
        try:
            return cls(**json.loads(text))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"no record of a job ({error})") from error

    def difference(self, earlier: "JobRecord") -> str | None:
        """How the earlier record differs, as in "lr 0.1, not 0.2"; None where it does not.

        `root` may differ, and times of change by the 2 s that archives round them to: a data set
        that was moved or unpacked again is the same.
        """
        theirs = earlier.settings | {"model": earlier.model} | earlier.classes
        ours = self.settings | {"model": self.model} | self.classes
        for name in ours | theirs:
            if ours.get(name) != theirs.get(name):
                return f"{name} {short(theirs.get(name))}, not {short(ours.get(name))}"
        for name in self.files | earlier.files:
            if name not in earlier.files:
                return f"no file {name}, which is there now"
            if name not in self.files:
                return f"a file {name}, which is not there now"
            (size, changed), (earlier_size, earlier_changed) = self.files[name], earlier.files[name]
            if size != earlier_size or abs(changed - earlier_changed) > ARCHIVE_NS:
                return f"another {name}: its size or time of change differs"
        if list(self.files) != list(earlier.files):
            return "its files in another order"
        return None


def record_files(paths: Iterable[Path]) -> tuple[str, dict[str, list[int]]]:
    """`root` and `files` of a JobRecord: the folder that holds all paths, and each file's facts."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    try:
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    except ValueError:  # no files, or files on two drives
        return "", {path.as_posix(): file_facts(path) for path in absolute}
    return str(root), {path.relative_to(root).as_posix(): file_facts(path) for path in absolute}


def file_facts(path: Path) -> list[int]:
    """[size in bytes, time of change in ns]."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
