"""Image and mask pairs as tensors, and their loaders."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from common.distributed import rank, world_size
from common.signals import worker_init
from data.augment import Augment
from data.labels.masks import MaskEncoding
from data.layouts import find_splits
from data.pairs import SPLIT_NAMES, Pair, Splits, pair_by_stem, read_pair, tile_pairs
from data.survey import SegmentationData
from data.transforms import Resize, eval_transform, mean_colour, to_tensor
from utils import InputError


def draw_number(epoch: int, picture: int | Tensor, num_pairs: int) -> int | Tensor:
    """Index of the item that is a picture as augmented in an epoch, which counts from 1."""
    return epoch * num_pairs + picture


def epoch_and_picture(draw: int, num_pairs: int) -> tuple[int, int]:
    """The inverse of draw_number."""
    return divmod(draw, num_pairs)


class SegmentationDataset(Dataset):
    """Pairs as tensors. Items are numbered by draw_number.

    With `augment`: image (3, H, W) float32 and target (H, W) uint8, augmented as the draw decides.
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

    def pair(self, draw: int) -> Pair:
        return self.pairs[epoch_and_picture(draw, len(self.pairs))[1]]

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        colour = mean_colour(self.resize.input_format)
        image, target = read_pair(self.pair(draw), self.encoding, colour)
        if self.augment is None:
            return eval_transform(image, self.resize), torch.from_numpy(target)
        image, target = self.augment(image, target, draw)
        return to_tensor(image, self.resize.input_format), torch.from_numpy(target)


class EpochBatches(Sampler[list[int]]):
    """Batches of draws: in each epoch every picture once, shuffled by seed and epoch alone.

    A joint batch has batch_size draws for each process, the epoch's last one what is left. Each
    process yields its part of it, which may be empty.

    epoch: counted from 1. start: the number of batches of the epoch to leave out.
    """

    def __init__(self, num_pairs: int, batch_size: int, seed: int):
        self.num_pairs = num_pairs
        self.batch_size = batch_size * world_size()
        self.seed = seed
        self.epoch = 1
        self.start = 0

    def __len__(self) -> int:
        return max(0, -(-self.num_pairs // self.batch_size) - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.start + len(self)):
            yield self.batch(number)[rank() :: world_size()]

    def batch(self, number: int) -> list[int]:
        """The draws of all processes in one batch of this epoch, counted from 0."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.num_pairs, generator=generator)
        pictures = order[number * self.batch_size : (number + 1) * self.batch_size]
        return draw_number(self.epoch, pictures, self.num_pairs).tolist()


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

    The training loader's batch_sampler is an EpochBatches. Validation targets come as a list, each
    of its own size. Each process gets its part of both.
    """
    data.check_trainable()
    train = SegmentationDataset(data.splits.train, data.encoding, resize, augment)
    pairs = data.splits.valid
    if augment.tiled:  # validation is at the resolution of training
        pairs = tile_pairs(pairs, resize.image_size)
    valid = SegmentationDataset(pairs, data.encoding, resize)
    options = {
        "num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pin_memory,
        "worker_init_fn": worker_init(),
    }  # fmt: skip
    batches = EpochBatches(len(train), batch_size, seed)
    collate = partial(collate_targets_of_one_size, image_size=resize.image_size)
    indices = own_indices(len(valid))
    return (
        DataLoader(train, batch_sampler=batches, collate_fn=collate, **options),
        DataLoader(valid, batch_size, sampler=indices, collate_fn=collate_own_sizes, **options),
    )


def build_test_loader(data: SegmentationData, valid_loader: DataLoader) -> DataLoader | None:
    """A loader of the test pairs with the settings of the validation loader; None without any."""
    if not data.splits.test:
        return None
    resize, pairs = valid_loader.dataset.resize, data.splits.test
    if valid_loader.dataset.pairs[0].window:
        pairs = tile_pairs(pairs, resize.image_size)
    test = SegmentationDataset(pairs, data.encoding, resize)
    return DataLoader(
        test, valid_loader.batch_size, sampler=own_indices(len(test)), collate_fn=collate_own_sizes,
        num_workers=valid_loader.num_workers, worker_init_fn=worker_init(),
    )  # fmt: skip


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
    more = [tuple(given[1:]) if isinstance(given, list) else () for given in folders[:2]]
    folders = [given[0] if isinstance(given, list) else given for given in folders]
    splits = find_splits(
        args.data, folders, args.valid_fraction, args.classes, args.allow_unmatched
    )
    return with_more_training_pairs(splits, *more, args.allow_unmatched)


def with_more_training_pairs(
    splits: Splits, images: Sequence[Path], masks: Sequence[Path], allow_unmatched: bool
) -> Splits:
    """The splits with the pairs of more folders to train on, but for pictures that score the model.

    A folder may be named again, so that its pictures weigh more.
    """
    if len(images) != len(masks):
        raise InputError(
            f"{len(images) + 1} --train-images but {len(masks) + 1} --train-masks; give as many "
            "folders of both, in the same order"
        )
    for folders in zip(images, masks, strict=True):
        pairs, orphans = pair_by_stem(*folders)
        notes = list(splits.notes)
        if orphans and allow_unmatched:
            notes.append(f"{len(orphans)} files without a partner are left out of {folders[0]}")
            orphans = []
        scored = {pair.image for pair in (*splits.valid, *splits.test)}
        train = [*splits.train, *(pair for pair in pairs if pair.image not in scored)]
        orphans = [*splits.orphans, *orphans]
        splits = replace(splits, train=train, orphans=orphans, notes=notes)
    return splits


if __name__ == "__main__":
    sys.exit("the report on a data set has moved: python check_data.py --data DIR")
