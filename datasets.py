"""Image and mask pairs as tensors, and their loaders."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest
from math import ceil

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from common.distributed import rank, world_size
from common.signals import worker_init
from data.augment import Augment
from data.labels.masks import MaskEncoding
from data.layouts import find_splits
from data.names import from_sides, side_at
from data.pairs import SPLIT_NAMES, Pair, Splits, read_pair, tile_pairs
from data.survey import SegmentationData
from data.transforms import Resize, eval_transform, mean_colour, to_tensor
from utils import InputError

PREVIEWED = 4  # the first validation pictures, which are drawn after each epoch
LONG_WAIT, MUCH = 10.0, 0.3  # seconds of waiting, and share of the time, that are worth a word


def sample_index(epoch: int, picture: int | Tensor, num_pairs: int) -> int | Tensor:
    """Index of the item that is a picture as augmented in an epoch, which counts from 1."""
    return epoch * num_pairs + picture


def epoch_and_picture(sample: int, num_pairs: int) -> tuple[int, int]:
    """The inverse of sample_index."""
    return divmod(sample, num_pairs)


class SegmentationDataset(Dataset):
    """Pairs as tensors. Items are numbered by sample_index.

    With `augment`: image (3, H, W) float32 and target (H, W) uint8, augmented as the index decides.
    Without: the image fitted by `resize`, and the target at the mask's own size.
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

    @property
    def pictures(self) -> "SegmentationDataset":
        """The data set whose items are images: this one; see CachedDataset."""
        return self

    def pair(self, sample: int) -> Pair:
        return self.pairs[epoch_and_picture(sample, len(self.pairs))[1]]

    def __getitem__(self, sample: int) -> tuple[Tensor, Tensor]:
        colour = mean_colour(self.resize.input_format)
        image, target = read_pair(self.pair(sample), self.encoding, colour)
        if self.augment is None:
            return eval_transform(image, self.resize), torch.from_numpy(target)
        image, target = self.augment(image, target, sample)
        return to_tensor(image, self.resize.input_format), torch.from_numpy(target)


class EpochBatches(Sampler[list[int]]):
    """Batches of sample indices: in each epoch every picture once, shuffled by seed and epoch.

    A joint batch has batch_size samples for each process, the epoch's last one what is left. Each
    process yields its part of it, which may be empty.
    """

    def __init__(self, num_pairs: int, batch_size: int, seed: int):
        self.num_pairs = num_pairs
        self.batch_size = batch_size * world_size()
        self.seed = seed
        self.epoch = 1
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The epoch to yield, counted from 1. start: the number of its batches to leave out."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return max(0, -(-self.num_pairs // self.batch_size) - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.start + len(self)):
            yield self.batch(number)[rank() :: world_size()]

    def batch(self, number: int) -> list[int]:
        """The samples of all processes in one batch of this epoch, counted from 0."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.num_pairs, generator=generator)
        pictures = order[number * self.batch_size : (number + 1) * self.batch_size]
        return sample_index(self.epoch, pictures, self.num_pairs).tolist()


def build_loaders(
    data: SegmentationData,
    resize: Resize,
    augment: Augment,
    batch_size: int,
    workers: int,
    seed: int,
    pin_memory: bool = False,
) -> tuple[DataLoader, DataLoader, DataLoader | None]:
    """Loaders of augmented training batches, of validation and, if there are any, of test batches.

    See SegmentationDataset. The training loader's batch_sampler is an EpochBatches. Targets of the
    others come as a list, each of its own size. Each process gets its part of all.
    """
    data.check_trainable()
    train = SegmentationDataset(data.splits.train, data.encoding, resize, augment)
    options = {
        "num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pin_memory,
        "worker_init_fn": worker_init(),
        # A loader without a generator draws from torch's own, which resuming would disturb.
        "generator": torch.Generator(),
    }  # fmt: skip
    batches = EpochBatches(len(train), batch_size, seed)
    collate = partial(collate_targets_of_one_size, image_size=resize.image_size)

    def of_own_sizes(pairs: Sequence[Pair]) -> DataLoader:
        if augment.tiled:  # validation is at the resolution of training
            pairs = tile_pairs(pairs, resize.image_size)
        dataset = SegmentationDataset(pairs, data.encoding, resize)
        indices = own_indices(len(dataset))
        return DataLoader(
            dataset, batch_size, sampler=indices, collate_fn=collate_own_sizes, **options
        )

    return (
        DataLoader(train, batch_sampler=batches, collate_fn=collate, **options),
        of_own_sizes(data.splits.valid),
        of_own_sizes(data.splits.test) if data.splits.test else None,
    )


def timed_epoch(loader: DataLoader) -> Iterator:
    """The batches; then a line with the --workers that would keep up, if loading took long."""
    batches = iter(loader)
    yield from islice(batches, 1)  # for which the workers start
    started = asked = time.perf_counter()
    waited, now = 0.0, loader.num_workers
    for batch in batches:
        waited += time.perf_counter() - asked
        yield batch
        asked = time.perf_counter()
    share = waited / max(time.perf_counter() - started, 1e-9)
    workers = min(ceil(max(now, 1) / max(1 - share, 1e-9)), os.cpu_count() or 1)
    if waited > LONG_WAIT and share > MUCH and workers > now:
        print(f"{share:.0%} of the time went into loading pictures: try --workers {workers}")


def own_indices(count: int) -> range:
    """Indices of this process's items; each of the `count` items belongs to one process."""
    return range(rank(), count, world_size())


def collate_targets_of_one_size(
    items: list[tuple[Tensor, Tensor]], image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and targets (B, H, W); B may be 0."""
    if not items:
        return torch.empty(0, 3, *image_size), torch.empty(0, *image_size, dtype=torch.uint8)
    return default_collate(items)


def collate_own_sizes(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Images (B, 3, H, W) and a list of B targets (H', W')."""
    images, targets = zip(*items, strict=True)
    return default_collate(images), list(targets)


def preview_batch(dataset: Dataset, count: int) -> tuple[Tensor, list[Tensor]]:
    """The first items, batched as the validation loader does."""
    return collate_own_sizes([dataset[i] for i in range(min(count, len(dataset)))])


def splits_from_flags(args: argparse.Namespace) -> Splits:
    """The pairs of each split that the flags of `add_data_flags` name."""
    folders = [
        getattr(args, f"{split}_{kind}") for split in SPLIT_NAMES for kind in ("images", "masks")
    ]
    first, *more = zip_longest(*(given or [None] for given in folders[:2]))
    if any(None in both for both in more):
        raise InputError("give as many --train-masks as --train-images, in the same order")
    folders = [*first, *folders[2:]]
    splits = find_splits(
        args.data, folders, args.valid_fraction, args.classes, args.allow_unmatched
    )
    # More folders to train on add their pairs, but for pictures that score the model.
    added = from_sides("", [("train", *map(side_at, both)) for both in more])
    added = replace(added, allow_unmatched=args.allow_unmatched).without_orphans()
    scored = {pair.image for pair in (*splits.valid, *splits.test)}
    train = [*splits.train, *(pair for pair in added.train if pair.image not in scored)]
    orphans, notes = splits.orphans + added.orphans, splits.notes + added.notes
    return replace(splits, train=train, orphans=orphans, notes=notes)


if __name__ == "__main__":
    sys.exit("the report on a data set has moved: python check_data.py --data DIR")
