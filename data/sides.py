"""Pairs of the sides of each split: folders, or patterns of files in one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.names import Side, derived_names, masks_beside, match_names, side_at
from data.pairs import LEAVE_OUT, SPLIT_NAMES, Orphan, Pair, Splits
from utils import InputError


class NoFit(InputError):
    """A layout's folders are there, but not what they should hold."""


Folders = tuple[Path | None, Path | None]


def by_split(layout: str, folders: Sequence[Path | None]) -> dict[str, Folders]:
    """{split: (images, masks)} of folders by hand; raises InputError where one of the two lacks."""
    pairs = zip(SPLIT_NAMES, folders[::2], folders[1::2], strict=False)
    found = {split: (images, masks) for split, images, masks in pairs if images or masks}
    for split, (images, masks) in found.items():
        if not (images and masks):
            raise InputError(
                f"{layout}: give both --{split}-images and --{split}-masks "
                f"({split.upper()}_IMAGES and {split.upper()}_MASKS in a class file)"
            )
    return found


def from_folders(layout: str, folders: Mapping[str, Folders]) -> Splits:
    """The pairs of each split's images and masks, which are folders or patterns."""
    sides = {s: (side_at(images), side_at(masks)) for s, (images, masks) in folders.items()}
    return from_sides(layout, [(split, *both) for split, both in sides.items()])


def from_sides(layout: str, sides: Sequence[tuple[str, Side, Side]]) -> Splits:
    """The pairs of (split, images, masks), of which a split may have several."""
    splits = Splits(layout)
    for split, images, masks in sides:
        pairs, orphans = pair_sides(images, masks)
        splits.pairs_of(split).extend(pairs)
        splits.orphans.extend(orphans)
    used = {path for pair in splits.pairs for path in pair.files}  # by other sides, perhaps
    return replace(splits, orphans=[o for o in splits.orphans if o.path not in used])


def pair_sides(images: Side, masks: Side) -> tuple[list[Pair], list[Orphan]]:
    """Images and masks of one name, sorted, and the files that are left over.

    The two may lie in one folder, in which masks have one of MASK_ENDINGS or fit their pattern.
    """
    if images.folder.resolve() == masks.folder.resolve() and not images.is_pattern:
        images, masks = _in_one_folder(images, masks)
    matches = match_names(images, masks)
    pairs = [Pair(image, mask) for image, mask in matches.values() if image and mask]
    if not pairs:
        both = [path.stem for side in (images, masks) for path in side.files]
        patterns = [f"{key}.*" for key in derived_names(both)] or ["*_mask.*"]
        flags = " or ".join(f"--train-masks '{masks.folder / key}'" for key in patterns)
        raise NoFit(
            f"{masks.where}: no mask has the name of an image in {images.where} (such as "
            f"{images.files[0].name} and {masks.files[0].name}); give both the same name; masks "
            f"may end in _mask, _label, _gt and the like; or name images and a pattern of the "
            f"masks: --train-images {images.where} {flags}"
        )
    orphans = [
        Orphan(image or mask, f"no {'mask' if image else 'image'} of this name in {other.where}")
        for image, mask in sorted(matches.values(), key=lambda match: match[0] is None)
        if not (image and mask)
        for other in (masks if image else images,)
    ]
    return pairs, [o._replace(problem=f"{o.problem}; {LEAVE_OUT}") for o in orphans]


def _in_one_folder(images: Side, masks: Side) -> tuple[Side, Side]:
    """The two sides of a folder that holds images and their masks."""
    if masks.is_pattern:
        longer = set().union(*derived_names(path.stem for path in images.files).values())
        files = [p for p in images.files if p not in masks.files and p.stem not in longer]
        return replace(images, files=files), masks
    here = masks_beside(images)
    if not here:
        raise NoFit(
            f"{images.where}: no masks beside its pictures; masks in the pictures' folder are "
            "named x_mask.png for x.jpg, all others are in a folder of their own"
        )
    files = [path for path in images.files if path not in here]
    return replace(images, files=files), replace(masks, files=sorted(here))
