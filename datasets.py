"""Image and mask pairs as tensors, every file checked before the first epoch."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from augment import Augment
from class_files import ClassFile, read_classes
from errors import InputError
from geometry import Resize
from images import read_image, read_mask
from layouts import Pair, Splits
from masks import INSTANCES, UNKNOWN, MaskEncoding, count_values, guess_encoding
from presets import MAX_CLASSES, Classes, default_classes
from transforms import eval_transform, to_tensor

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class SegmentationData:
    """Checked pairs, their classes, and how their masks are read."""

    splits: Splits
    classes: Classes
    encoding: MaskEncoding
    train_pixels: tuple[int, ...]  # per class

    def __str__(self) -> str:
        names = self.classes.names
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        return (
            f"{self.splits.layout}: {len(self.splits.train)} pairs to train on, "
            f"{len(self.splits.valid)} to validate; masks hold {self.encoding.name}; "
            f"{len(names)} classes: {shown}"
        )


@dataclass(frozen=True)
class Scan:
    """What a pair of files holds: the mask's values (or colour codes) and their pixels."""

    values: dict[int, int]
    is_colour: bool = False
    problem: str | None = None  # why the pair cannot be used


def load_data(splits: Splits) -> SegmentationData:
    """Read every file once, settle classes and encoding, and refuse what would fail later."""
    class_file = read_classes(splits.classes) if splits.classes else None
    if class_file and splits.instances:
        class_file = replace(class_file, instances=True)
    pairs = [*splits.train, *splits.valid]
    scans = scan_pairs(pairs)
    classes, encoding = _settle_classes(class_file, scans)
    problems = [
        f"{pair.mask}: {problem}"
        for pair, scan in zip(pairs, scans, strict=True)
        if (problem := scan.problem or _unknown_value(scan, encoding))
    ]
    if problems:
        raise InputError(_summary(problems, len(pairs)))
    counts = [0] * (max(classes.num_classes, 256))
    for scan in scans[: len(splits.train)]:
        for value, count in scan.values.items():
            counts[encoding.decode_value(value, scan.is_colour)] += count
    return SegmentationData(splits, classes, encoding, tuple(counts[: classes.num_classes]))


def scan_pairs(pairs: Sequence[Pair]) -> list[Scan]:
    """Decode every image and mask; a file that fails becomes a Scan with its problem."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scans = pool.map(_scan_pair, pairs)
        return list(tqdm(scans, "checking", len(pairs), unit="pair", leave=False))


def _scan_pair(pair: Pair) -> Scan:
    try:
        image, mask = read_image(pair.image), read_mask(pair.mask)
    except InputError as error:
        return Scan({}, problem=str(error))
    if image.shape[:2] != mask.shape[:2]:
        sizes = [f"{a.shape[1]}x{a.shape[0]}" for a in (image, mask)]
        problem = f"{sizes[1]} pixels, but its image {pair.image.name} has {sizes[0]}"
        return Scan({}, problem=f"{problem}; export it again at the image's size")
    return Scan(count_values(mask), is_colour=mask.ndim == 3)


def _settle_classes(
    class_file: ClassFile | None, scans: Sequence[Scan]
) -> tuple[Classes, MaskEncoding]:
    values = {v for scan in scans if not scan.is_colour for v in scan.values}
    if class_file is None:
        encoding = guess_encoding(values, None)
        if len(encoding.values) >= MAX_CLASSES:
            raise InputError(
                f"the masks hold values up to {max(values)}, too many for class ids; say in a "
                "dataset.yaml what they mean, or save masks without lossy compression"
            )
        return default_classes(len(set(encoding.values.values()))), encoding
    if class_file.instances:
        encoding = INSTANCES
    elif class_file.values:
        encoding = MaskEncoding("the class file's values", class_file.values)
    else:
        encoding = guess_encoding(values, class_file.classes.num_classes)
    return class_file.classes, replace(encoding, colours=class_file.colours)


def _unknown_value(scan: Scan, encoding: MaskEncoding) -> str | None:
    for value, count in scan.values.items():
        if encoding.decode_value(value, scan.is_colour) == UNKNOWN:
            return encoding.complaint(value, count, scan.is_colour)
    return None


def _summary(problems: Sequence[str], total: int) -> str:
    if len(problems) == 1:
        return problems[0]
    shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
    return f"{len(problems)} of {total} pairs cannot be used, first:\n  {shown}"


class SegmentationDataset(Dataset):
    """Item `draw` is picture `draw % num_pairs`.

    With `augment`, (image (3, H, W) float32, target (H, W) uint8) in its `draw`-th variation;
    without, the image fitted by `resize` and the target at the mask's own size.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        encoding: MaskEncoding,
        resize: Resize,
        augment: Augment | None = None,
    ):
        self.pairs = pairs
        self.encoding = encoding
        self.resize = resize
        self.augment = augment

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[draw % len(self.pairs)]
        image = read_image(pair.image)
        target = self.encoding.decode(read_mask(pair.mask))
        if self.augment is None:
            return eval_transform(image, self.resize), torch.from_numpy(target)
        image, target = self.augment(image, target, draw)
        return to_tensor(image), torch.from_numpy(target)


class EpochSampler(Sampler[int]):
    """Each epoch all pictures once, shuffled, as draws that no other epoch has.

    The draws depend on seed and epoch alone; count the epochs with `epoch`.
    """

    def __init__(self, num_pairs: int, seed: int):
        self.num_pairs = num_pairs
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.num_pairs, generator=generator)
        yield from (order + self.epoch * self.num_pairs).tolist()


def build_loaders(
    data: SegmentationData,
    resize: Resize,
    augment: Augment,
    batch_size: int,
    workers: int,
    seed: int,
    pin_memory: bool = False,
) -> tuple[DataLoader, DataLoader]:
    """Loaders of augmented training batches and of validation batches (see SegmentationDataset).

    The training loader's sampler is an EpochSampler. Validation targets come as a list, each of
    its own size.
    """
    train = SegmentationDataset(data.splits.train, data.encoding, resize, augment)
    valid = SegmentationDataset(data.splits.valid, data.encoding, resize)
    shared = {
        "batch_size": batch_size,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": pin_memory,
        "worker_init_fn": _init_worker,
    }
    return (
        DataLoader(train, sampler=EpochSampler(len(train), seed), **shared),
        DataLoader(valid, collate_fn=_collate_own_sizes, **shared),
    )


def preview_batch(dataset: SegmentationDataset, count: int) -> tuple[Tensor, list[Tensor]]:
    """The first items, as the validation loader would give them."""
    return _collate_own_sizes([dataset[i] for i in range(min(count, len(dataset)))])


def _collate_own_sizes(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    images, targets = zip(*items, strict=True)
    return default_collate(images), list(targets)


def _init_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
