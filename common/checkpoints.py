"""Checkpoints of this project: what they hold, and reading them without trusting the file."""

import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from common.tensor_files import check_state, load_tensors, save_tensors
from config import MAX_CLASSES, InputFormat
from utils import InputError

CHECKPOINT_FORMAT = "dinov2-segmentation"
CHECKPOINT_VERSION = 2
# The fields that earlier files lack, with their values.
LATER = {"hub_repo": "", "patch_size": 14, "tiled": False, "value_range": [], "training": {}}
MAX_PIXELS = 2**27  # of image_size; more would only fill the memory
MAX_PATCH_SIZE = 1024  # pixels
MIN_STD = 1e-3
MAX_TEXT = 4096  # characters, the longest path
SHORT = reprlib.Repr()
SHORT.maxlevel = 3


@dataclass(frozen=True)
class Checkpoint:
    """A model that train.py trained: what it is, how it sees pictures, its weights; plain data.

    The file holds these fields by their names, beside `format` and `version`.
    """

    backbone: str
    hub_repo: str  # --hub-repo of the training, an absolute path if local; "": the default
    weights: str
    fingerprint: str  # of the backbone's weights
    head: str
    fine_tune: bool  # whether model_state_dict holds the backbone too
    classes: list  # names
    palette: list  # [R, G, B] of each class
    image_size: list  # height, width
    keep_ratio: bool  # whether pictures keep their proportions, padded to image_size
    tiled: bool  # whether the model sees windows of image_size at the picture's own resolution
    patch_size: int  # pixels
    mean: list
    std: list
    value_range: list = field(default_factory=list)  # see data.numbers.ValueRange; []: 8 bits
    epoch: int = 0
    metrics: dict = field(default_factory=dict)  # the row of history.csv
    model_state_dict: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)  # in last.pth: what resuming needs

    def save(self, path: Path) -> None:
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        content |= {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION}
        save_tensors(path, content)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """The checkpoint in a file, its fields checked; `check_weights` validates the tensors.

        Reading a hostile file takes no more memory than its size. Raises InputError.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint; train one, or name another file")
        content = load_tensors(path)
        if content.get("format") != CHECKPOINT_FORMAT:
            raise InputError(
                f"{path}: not a checkpoint of this project; make one with train.py, whose "
                "--weights takes the file of a backbone"
            )
        if content.get("version") not in (1, CHECKPOINT_VERSION):
            raise InputError(
                f"{path}: format version {short(content.get('version'))}, this code reads 1 "
                f"and {CHECKPOINT_VERSION}; train again or use the code that wrote it"
            )
        content = LATER | content
        for item in fields(cls):
            if not isinstance(content.get(item.name), item.type):
                raise InputError(
                    f"{path}: its field {item.name!r} is missing or no {item.type.__name__}"
                )
        for problem in _problems(content):
            raise InputError(f"{path}: {problem}; train again, or take another checkpoint")
        return cls(**{item.name: content[item.name] for item in fields(cls)})

    @property
    def input_format(self) -> InputFormat:
        """What the backbone expects of images."""
        return InputFormat(self.patch_size, tuple(self.mean), tuple(self.std))

    def difference(self, other: "Checkpoint") -> str | None:
        """How the other's model differs, as in "head 'ms', not 'sharp'"; None where it does not."""
        skipped = {"epoch", "metrics", "model_state_dict", "training"}
        if self.fingerprint == other.fingerprint:  # the same backbone, wherever its files lie
            skipped |= {"hub_repo", "weights"}
        for item in fields(self):
            ours, theirs = getattr(self, item.name), getattr(other, item.name)
            if ours != theirs and item.name not in skipped:
                return f"{item.name} {short(theirs)}, not {short(ours)}"
        return None


def _problems(content: dict) -> Iterator[str]:
    """Problems of fields that have the right types."""
    for item in fields(Checkpoint):
        value = content[item.name]
        if item.type is str and (len(value) > MAX_TEXT or not value.isprintable()):
            yield f"its field {item.name!r} is no line of text"
    limits = content["value_range"]
    if limits and (len(limits) != 2 or any(type(n) is not int for n in limits)):
        yield "its value_range is not two whole numbers"
    elif limits and not limits[0] < limits[1]:
        yield f"its value_range {short(limits)} is no range"
    yield from description_problems(content)


def description_problems(content: dict) -> Iterator[str]:
    """Problems of image_size, classes, palette, patch_size, mean and std, of the right types."""
    size, classes, palette = content["image_size"], content["classes"], content["palette"]
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        yield f"its image_size {short(size)} is not a height and a width in pixels"
    elif size[0] * size[1] > MAX_PIXELS:
        yield f"its image_size {short(size)} is more than {MAX_PIXELS} pixels"
    if not 1 <= len(classes) <= MAX_CLASSES or not all(map(_is_class_name, classes)):
        yield f"its classes are not 1 to {MAX_CLASSES} names of at most {MAX_TEXT} characters"
    if len(palette) != len(classes):
        yield f"{len(classes)} classes, other number of colours"
    if not all(map(_is_colour, palette)):
        yield "its palette holds something else than colours [R, G, B] of 0..255"
    if not 1 <= content["patch_size"] <= MAX_PATCH_SIZE:
        yield f"its patch_size {short(content['patch_size'])} is not 1 to {MAX_PATCH_SIZE} pixels"
    if not are_mean_and_std(content["mean"], content["std"]):
        yield "its mean and std are not three plausible numbers each"


def _is_class_name(value: Any) -> bool:
    has_length = isinstance(value, str) and len(value) <= MAX_TEXT
    return has_length and not any("\ud800" <= c <= "\udfff" for c in value)  # no file holds these


def are_mean_and_std(mean: Sequence[Any], std: Sequence[Any]) -> bool:
    """Whether both are three plausible floats, for RGB 0..1."""
    bounds = [(mean, -10), (std, MIN_STD)]
    return all(
        len(values) == 3 and all(type(v) is float and low <= v <= 10 for v in values)
        for values, low in bounds
    )


def _is_colour(value: Any) -> bool:
    has_length = isinstance(value, list) and len(value) == 3
    return has_length and all(type(c) is int and 0 <= c <= 255 for c in value)


def check_weights(path: Path, state: dict, expected: dict[str, Tensor]) -> None:
    """Raise InputError unless weights are finite tensors like those expected."""
    check_state(state, expected, f"{path}: its weights do not fit its own description")
    for name, value in state.items():
        if value.dtype != expected[name].dtype:
            raise InputError(f"{path}: {name} is {value.dtype}, expected {expected[name].dtype}")
        if not value.isfinite().all():
            raise InputError(
                f"{path}: its weights are not finite ({name}), the training had failed; take "
                "another checkpoint"
            )


def short(value: Any) -> str:
    """A short text for any value of a file, however large, deep or strange it is."""
    return " ".join(SHORT.repr(value).split())
