"""What every format is read to: pictures with shapes, the labels, and what is wrong."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from data.annotations.shapes import Annotation
from data.inventory import Inventory
from data.splits import split_of
from utils import InputError

Size = tuple[int, int] | None  # (H, W), where a file gives it


@dataclass
class AnnotationSet:
    """What annotation files say of the pictures in an inventory.

    layout: the format, and an example of a file. labels: in the order of their ids. unmatched:
    (file, what it lacks) of files without a partner. problems: (file, what is wrong with it). seen:
    {what a note says of some: examples}. bare: pictures that no file annotates. small_on_top:
    shapes have no order, see Annotation.
    """

    layout: str
    inventory: Inventory
    by_picture: dict[Path, Annotation] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    unmatched: list[tuple[Path, str]] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: dict[str, list[object]] = field(default_factory=lambda: defaultdict(list))
    bare: set[Path] = field(default_factory=set)
    small_on_top: bool = False

    def add(self, annotation: Annotation, entries: Iterable = (), parse: Callable = iter) -> None:
        """Add a picture's annotation, unless it has one, with the shapes of its entries.

        They are those that `parse` yields of (name, entry); what it cannot read is a problem.
        """
        for name, entry in entries:
            try:
                annotation.shapes.extend(parse(entry))
            except Exception as error:  # of a foreign file's numbers and pictures
                self.problems.append((annotation.file, f"{name}: {error}"))
        first = self.by_picture.setdefault(annotation.image, annotation)
        if first.content != annotation.content:
            problem = (
                f"annotates {annotation.image.name}, which {annotation.file} annotates in another "
                "way; remove it from one of them, or give a file that is not to count another "
                "extension, such as .off"
            )
            self.problems.append((first.file, problem))
        elif first is not annotation:
            self.seen["pictures are annotated alike in two files"].append(annotation.image)

    def add_labels(self, labels: Iterable[str]) -> None:
        self.labels += [label for label in dict.fromkeys(labels) if label not in self.labels]

    def find(
        self, file: Path, names: Iterable, *statements: Path, entry: str = "", size: Size = None
    ) -> Annotation | None:
        """An annotation of the picture of the first name that is one's; None, noted, without any.

        entry: of the file, for messages. statements: paths below the root, the file's by default,
        and names, that may state the split. Raises InputError where two state different ones.
        """
        statements = statements or (file.relative_to(self.inventory.root),)
        split = next(filter(None, map(split_of, reversed(statements))), None)
        problems = []
        for name in names:
            try:
                image = self._named(name, file.parent, split)
            except ValueError as error:
                problems.append(error)
            else:
                return Annotation(image, file, self._split_of(image, statements), size)
        self.unmatched.append((file, f"{entry}{problems[0] if problems else 'names no picture'}"))
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Pictures by names with and without extension."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.inventory.pictures:
            found[composed(path.name)].append(path)
            found[composed(path.stem)].append(path)
        return found

    def _named(self, name: str, near: Path, split: str | None) -> Path:
        """The picture of a name such as "a.jpg" or "val/a.jpg"; ValueError if none or several.

        The name only selects among the pictures below the root, so it cannot lead out of it.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        found = self._by_name.get(composed(parts[-1]), []) if parts else []
        for k in range(2, len(parts) + 1):  # the more folders of the name agree, the better
            found = [p for p in found if p.parts[-k:-1] == parts[-k:-1]] or found
        found = [path for path in found if path.parent == near] or found
        if split:
            root = self.inventory.root
            found = [p for p in found if split_of(p.relative_to(root)) == split] or found
        if not found:
            raise ValueError(f"its picture {name} is not below {self.inventory.root}")
        if len(found) > 1:
            raise ValueError(f"{found[0]} and {found[1]} both have the name of its picture")
        return found[0]

    def _split_of(self, image: Path, statements: Sequence[Path]) -> str | None:
        """The split of a picture, as statements and its own folder say."""
        folder = image.parent.relative_to(self.inventory.root)
        told = {str(path): split for path in statements if (split := split_of(path))}
        if own := split_of(folder):
            told[f"the folder {folder}"] = own
        if len(set(told.values())) > 1:
            shown = ", but ".join(f"{place} says {split}" for place, split in told.items())
            raise InputError(f"{image}: {shown}; rename one of them, so that no split is mixed")
        return next(iter(told.values()), None)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Raise InputError that names a file where it is not as its kind should be."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not {kind} (near {error})") from error


def size_of(height: object, width: object) -> Size:
    """(H, W) of the picture as a file says, or None where it does not."""
    size = int(height or 0), int(width or 0)
    return size if min(size) > 0 else None


def composed(names: str) -> str:
    """Names of files in Unicode's composed form; macOS stores letters and their accents apart."""
    return unicodedata.normalize("NFC", names)


def as_id(value: object) -> str:
    """An id as text; whole numbers are alike in any notation, such as 1, "1", 1.0 and 1e0."""
    with suppress(ValueError, TypeError, OverflowError):
        number = float(value)
        if number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    return str(value).strip()
