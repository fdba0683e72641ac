"""What every format is read to: pictures with shapes, the labels, and what is wrong."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.annotations.shapes import Annotation
from data.splits import split_of
from utils import InputError


@dataclass
class AnnotationSet:
    """What annotation files say of a data set.

    layout: the format, and an example of a file. files: {picture: the file that annotates it}.
    labels: in the order of their ids. unmatched:
    (file, what it lacks) of files without a partner. problems: (file, what is wrong with it).
    """

    layout: str
    annotations: list[Annotation] = field(default_factory=list)
    files: dict[Path, Path] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    unmatched: list[tuple[Path, str]] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, annotation: Annotation) -> None:
        """Add a picture's annotation; a second one of the same picture is a problem."""
        image, file = annotation.image, annotation.file
        if image in self.files:
            self.problems.append((file, f"{image} is already annotated in {self.files[image]}"))
            return
        self.files[image] = file
        self.annotations.append(annotation)

    def add_labels(self, labels: Iterable[str]) -> None:
        self.labels += [label for label in dict.fromkeys(labels) if label not in self.labels]


class PictureIndex:
    """Finds pictures below a folder by the names that annotation files give them."""

    def __init__(self, root: Path, pictures: Sequence[Path]):
        self.root, self.pictures = root, pictures
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in pictures:
            self._by_name[composed(path.name)].append(path)
            self._by_stem[composed(path.stem)].append(path)

    def named(self, name: str, near: Path, split: str | None) -> Path:
        """The picture of a name such as "a.jpg" or "val/a.jpg"; ValueError if none or several.

        The name only selects among the pictures below the root, so it cannot lead out of it.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        found = self._by_name.get(composed(parts[-1]), []) if parts else []
        for k in range(2, len(parts) + 1):  # the more folders of the name agree, the better
            found = [p for p in found if p.parts[-k:] == parts[-k:]] or found
        return self._one(found, name, near, split)

    def split_of(self, image: Path, *statements: Path) -> str | None:
        """The split of a picture: what annotation files say by their names, and its own folder.

        statements: paths below the root, or names of splits. Raises InputError where two disagree.
        """
        folder = image.parent.relative_to(self.root)
        told = {str(path): split for path in statements if (split := split_of(path))}
        if own := split_of(folder):
            told[f"the folder {folder}"] = own
        if len(set(told.values())) > 1:
            shown = ", but ".join(f"{place} says {split}" for place, split in told.items())
            raise InputError(f"{image}: {shown}; rename one of them, so that no split is mixed")
        return next(iter(told.values()), None)

    def with_stem(self, stem: str, near: Path, split: str | None) -> Path:
        """The picture of a name without extension; ValueError if there is none or several."""
        return self._one(self._by_stem.get(composed(stem), []), stem, near, split)

    def _one(self, found: list[Path], name: str, near: Path, split: str | None) -> Path:
        found = [path for path in found if path.parent == near] or found
        if split and len(found) > 1:
            found = [p for p in found if split_of(p.relative_to(self.root)) == split] or found
        if not found:
            raise ValueError(f"its picture {name} is not below {self.root}")
        if len(found) > 1:
            raise ValueError(f"{found[0]} and {found[1]} both have the name of its picture")
        return found[0]


def composed(names: str) -> str:
    """Names of files in Unicode's composed form; macOS stores letters and their accents apart."""
    return unicodedata.normalize("NFC", names)


def as_id(value: object) -> str:
    """An id as text; whole numbers are alike in any notation, such as 1, "1", 1.0 and 1e0."""
    if isinstance(value, str) and not value.strip().isdigit():
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return str(int(text)) if text.isdecimal() and len(text) < 20 else text
