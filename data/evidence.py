"""Which folders hold pictures and which hold their masks, told by names, values and sizes."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from data.images import read_mask, upright_size
from data.inventory import Inventory, evenly
from data.labels.masks import colour_of, count_values, value_codes
from data.names import ENOUGH, Side, derived_names, match_names
from data.pairs import OFF_BY, SPLIT_NAMES, is_smaller_copy
from data.splits import split_of, split_of_name, without_split
from utils import InputError

SAMPLE = 6  # files that are opened on each side
FEW_VALUES = 32  # at most in a mask of classes
MANY_VALUES = 64  # at least in a photograph
NEAR, APART = 16, 48  # of values: by so much compression moves one; two classes are farther apart
MOST_CLUSTERS, RARE = 8, 0.005  # of values, and the least part of the pixels that one has
MANY_GROUPS = 40  # of which any two may belong together
LOOKED_AT = 250_000  # pixels of a file
MASK, PHOTO, UNCLEAR = "mask", "photograph", "unclear"


@dataclass(frozen=True)
class Group(Side):
    """A side as found. split: that it states, or None. place: its folders, without that."""

    split: str | None = None
    place: tuple[str, ...] = ()

    def shown(self, root: Path) -> str:
        """Where the files are, for people."""
        is_of_samples = self.where == root and self.place
        return f"*/{self.place[0]}" if is_of_samples else str(self.where.relative_to(root))

    @cached_property
    def kind(self) -> str:
        """MASK or PHOTO if most files of a sample are of that kind, else UNCLEAR."""
        kinds = [kind for path in evenly(self.files, SAMPLE) if (kind := kind_of(path))]
        return next((kind for kind in (MASK, PHOTO) if 2 * kinds.count(kind) > len(kinds)), UNCLEAR)


@dataclass(frozen=True)
class Twin:
    """Two groups whose names and sizes fit."""

    images: Group
    masks: Group

    @property
    def split(self) -> str | None:
        return self.images.split or self.masks.split

    @property
    def roles(self) -> tuple[str, str]:
        """What tells the two places apart, for example ("image", "mask")."""
        one, other = self.images.place, self.masks.place
        shared = set(one) & set(other)
        names = ["/".join(part for part in place if part not in shared) for place in (one, other)]
        return names[0], names[1]

    @cached_property
    def paired(self) -> set[Path]:
        """The masks of which a picture has the name."""
        return {mask for image, mask in match_names(self.images, self.masks) if image and mask}

    def is_sure(self) -> bool:
        """Whether the values say that these are photographs and masks."""
        return (self.images.kind, self.masks.kind) == (PHOTO, MASK)

    def is_rival_of(self, other: "Twin") -> bool:
        """Whether the two cannot both hold: two masks of a picture, or two pictures of a mask."""
        if self.images.where == other.images.where:
            return self.masks.where != other.masks.where
        is_shared = (
            self.masks.where == other.masks.where and self.images.place != other.images.place
        )
        return is_shared and not self.paired.isdisjoint(other.paired)


def sides_of(twins: Sequence[Twin]) -> list[tuple[str, Side, Side]]:
    """The sides of each split; a folder that states none is of training.

    Where each has its own, names may have other words besides: pics and anns, pics_test, anns_test.
    """
    loose = [t.split or split_of_name(t.images.where.name, strict=False) for t in twins]
    stated = loose if len({*loose}) == len(twins) else [twin.split for twin in twins]
    sides = [(s or "train", t.images, t.masks) for s, t in zip(stated, twins, strict=True)]
    return sorted(sides, key=lambda side: SPLIT_NAMES.index(side[0]))


def find_twins(inventory: Inventory) -> list[Twin]:
    """Each two groups whose names and sizes fit, photographs first, or either way round.

    Of two groups whose values do not tell which is which, both orders are given. Groups in places
    that are not alike are looked at where those in alike places tell nothing for sure.
    """
    groups = _groups_by_name(inventory)
    groups = groups or [g for folder in inventory.by_folder for g in _groups(inventory, folder)]
    found = _fitting(_neighbours(groups))
    if len(groups) <= MANY_GROUPS and not any(map(Twin.is_sure, found)):
        found = _fitting(combinations(groups, 2))
    for is_better in (
        lambda twin: twin.images.split == twin.masks.split,
        lambda twin: len(twin.images.files) == len(twin.masks.files),
    ):
        better = [twin for twin in found if is_better(twin)]
        paired = {group.where for twin in better for group in (twin.images, twin.masks)}
        found = [t for t in found if t in better or not {t.images.where, t.masks.where} <= paired]
    return found


def _fitting(pairs: Iterable[tuple[Group, Group]]) -> list[Twin]:
    found = []
    for one, other in pairs:
        if one.split and other.split and one.split != other.split:
            continue
        for images, masks in ((one, other), (other, one)):
            if _may_be(images, masks) and fit(images, masks):
                found.append(Twin(images, masks))
    return found


def _may_be(images: Group, masks: Group) -> bool:
    """Whether the values allow it: a photograph is no mask, and a mask no image, or both are masks.

    Two of masks in folders of one name, such as 1/masks and 2/masks, are alike, and no twins.
    """
    if images.kind == MASK or masks.kind == PHOTO:
        return images.kind == masks.kind == MASK and images.place[-1:] != masks.place[-1:]
    return True


def _groups(inventory: Inventory, folder: Path) -> Iterator[Group]:
    """The files of a folder, or its parts if their names tell images and masks apart."""
    files = inventory.by_folder[folder]
    below = folder.relative_to(inventory.root)
    place = tuple(part for name in below.parts if (part := without_split(name)))
    parts = _parts(files) or {"": files}
    for pattern, chosen in parts.items():
        where = folder / pattern if pattern else folder
        tail = (pattern,) if pattern else ()
        yield Group(where, sorted(chosen), split_of(below), (*place, *tail))


def _groups_by_name(inventory: Inventory) -> list[Group]:
    """The files of each name in folders of one sample each, such as image.png and mask.png.

    Names may hold numbers and the folder's name. [] unless all folders hold the same names, of
    which one is of photographs and one of masks.
    """
    root, folders = inventory.root, inventory.by_folder
    found: dict[tuple[str, str | None], list[Path]] = defaultdict(list)
    for folder, files in folders.items():
        for path in files:
            name = re.sub(r"\d+", "*", path.name.replace(folder.name, "*"))
            found[name, split_of(folder.relative_to(root))].append(path)
    if len(folders) < 2 or 2 * len(folders) != len(inventory.rasters):
        return []
    groups = [Group(root, paths, split, (name,)) for (name, split), paths in found.items()]
    has_two_names = len({name for name, _ in found}) == 2
    return groups if has_two_names and {g.kind for g in groups} == {MASK, PHOTO} else []


def _parts(files: list[Path]) -> dict[str, list[Path]]:
    """{pattern: files} of a folder that holds images and their masks; {} if names do not say so."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_stem[path.stem].append(path)
    if derived := derived_names(by_stem):
        rest = by_stem.keys() - set().union(*derived.values())
        stems = {"": rest, **{f"{key}.*": names for key, names in derived.items()}}
        return {key: [p for name in names for p in by_stem[name]] for key, names in stems.items()}
    twice = sum(len(paths) == 2 for paths in by_stem.values())
    if twice and twice >= ENOUGH * len(by_stem):
        suffixes = {path.suffix for path in files}
        return {f"*{suffix}": [p for p in files if p.suffix == suffix] for suffix in suffixes}
    by_words: dict[str, list[Path]] = defaultdict(list)  # img_1.jpg and seg_1.png
    for path in files:
        by_words[re.sub(r"\d+", "*", path.stem) + path.suffix].append(path)
    if len(by_words) != 2 or any(pattern.count("*") != 1 for pattern in by_words):
        return {}
    kinds = {kind_of(paths[0]) for paths in by_words.values()}
    return by_words if kinds == {MASK, PHOTO} else {}


def _neighbours(groups: list[Group]) -> Iterator[tuple[Group, Group]]:
    """Each two groups whose places differ in one part at most, or of which one has a part more."""
    by_variant: dict[tuple, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        place = group.place
        for variant in {place, *(place[:k] + place[k + 1 :] for k in range(len(place)))}:
            by_variant[variant].append(number)
    pairs = {pair for numbers in by_variant.values() for pair in combinations(numbers, 2)}
    yield from ((groups[one], groups[other]) for one, other in sorted(pairs))


def fit(images: Side, masks: Side) -> bool:
    """Whether names and sizes of images and masks fit."""
    try:
        matches = match_names(images, masks)
    except InputError:  # two files of one name
        return False
    both = [(image, mask) for image, mask in matches if image and mask]
    smaller = min(len(images.files), len(masks.files))
    if len(both) < ENOUGH * smaller:
        return False
    sample = evenly(both, SAMPLE)
    return 2 * sum(_sizes_fit(image, mask) for image, mask in sample) >= len(sample)


def _sizes_fit(image: Path, mask: Path) -> bool:
    try:
        whole, size = upright_size(image), upright_size(mask)
    except InputError:
        return False
    near = all(abs(a - b) <= OFF_BY for a, b in zip(size, whole, strict=True))
    return near or size == whole[::-1] or is_smaller_copy(size, whole)


def kind_of(path: Path) -> str | None:
    """MASK, PHOTO or UNCLEAR by the values of a file; None if it cannot be read."""
    try:
        mask, _ = read_mask(path)
    except InputError as error:
        return PHOTO if "16 bits" in str(error) or "floating" in str(error) else None
    codes = value_codes(mask)
    codes = codes[:: max(1, codes.size // LOOKED_AT)]
    counts = count_values(codes)
    if len(counts) <= FEW_VALUES:
        return MASK
    is_flat = (codes[:, 1:] == codes[:, :-1]).mean() > ENOUGH
    if (is_flat and len(counts) < codes.size / 50) or _has_clusters(counts, mask.ndim == 3):
        return MASK
    return PHOTO if len(counts) >= min(MANY_VALUES, codes.size / 2) else UNCLEAR


def _has_clusters(counts: dict[int, int], is_colour: bool) -> bool:
    """Whether nearly all pixels are near a few values that lie far apart: soft or JPEG masks."""
    values, pixels = np.array(list(counts)), np.array(list(counts.values()))
    places = np.stack(colour_of(values) if is_colour else [values], axis=1)
    total, near, found = pixels.sum(), 0, 0
    while found < MOST_CLUSTERS and len(pixels) and pixels.max() >= RARE * total:
        distances = np.abs(places - places[pixels.argmax()]).max(axis=1)
        near += pixels[distances <= NEAR].sum()
        places, pixels = places[distances > APART], pixels[distances > APART]
        found += 1
    return bool(found >= 2 and near >= ENOUGH * total)
