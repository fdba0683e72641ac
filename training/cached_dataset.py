"""A data set and loaders that read stored features in place of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.distributed import world_size
from common.signals import worker_init
from data.pairs import Pair, read_target
from datasets import SegmentationDataset, draw_number, epoch_and_picture
from training.feature_store import FileStore, MemoryStore, TensorSpec

PREVIEWED = 4  # the first validation pictures are drawn after each epoch by the main process
Store = FileStore | MemoryStore


class CachedDataset(Dataset):
    """The items of a SegmentationDataset with features (C, h, w) in place of images.

    stores: of each view, whose record i belongs to picture i. View v is what epoch v + 1 sees, and
    epochs beyond the last view start again with the first. Targets that are not stored are decoded
    from the masks.
    """

    def __init__(self, pictures: SegmentationDataset, stores: Sequence[Store], pin_memory: bool):
        self.pictures = pictures
        self.resize = pictures.resize
        self.stores = stores
        self.pin_memory = pin_memory

    def __len__(self) -> int:
        return len(self.pictures)

    def pair(self, draw: int) -> Pair:
        return self.pictures.pair(draw)

    def __getitems__(self, draws: Sequence[int]) -> tuple[Tensor, Tensor | list[Tensor]]:
        """Features (B, C, h, w), and targets (B, H, W) or a list of them, of one epoch's draws."""
        numbers = [epoch_and_picture(draw, len(self)) for draw in draws]
        epoch = numbers[0][0] if numbers else 1
        store = self.stores[(epoch - 1) % len(self.stores)]
        features, *targets = store.read([picture for _, picture in numbers], self.pin_memory)
        return features, targets[0] if targets else [self._target(draw) for draw in draws]

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        features, targets = self.__getitems__([draw])
        return features[0], targets[0]

    def _target(self, draw: int) -> Tensor:
        """(H', W') uint8: validation targets have the size of their masks, so none is stored."""
        return torch.from_numpy(read_target(self.pair(draw), self.pictures.encoding))


@dataclass
class View:
    """All pictures of a split as one epoch sees them, and the store of their features.

    loader: of images, as build_loaders makes it. specs: of the features and, where it is stored,
    the target. records: those that this process computes.
    """

    loader: DataLoader
    specs: list[TensorSpec]
    epoch: int = 1
    records: Sequence[int] = ()
    store: Store | None = None

    def __len__(self) -> int:
        return len(self.loader.dataset)

    @property
    def record_bytes(self) -> int:
        return sum(spec.num_bytes for spec in self.specs)

    def batches(self) -> list[Sequence[int]]:
        """The records that this process computes, in batches."""
        size = self.loader.batch_size or self.loader.batch_sampler.batch_size // world_size()
        return [self.records[i : i + size] for i in range(0, len(self.records), size)]

    def images(self) -> DataLoader:
        """Loads images (B, 3, H, W) and targets of each of the batches."""
        loader = self.loader
        return DataLoader(
            loader.dataset,
            batch_sampler=[
                [draw_number(self.epoch, record, len(self)) for record in batch]
                for batch in self.batches()
            ],
            num_workers=loader.num_workers if self.records else 0,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=worker_init(),
            generator=torch.Generator(),  # torch's own would depend on what is stored already
        )


def cached_loader(loader: DataLoader, stores: Sequence[Store]) -> DataLoader:
    """The same batches of the same pictures as `loader`, with features in place of images.

    No workers: reading ahead in a thread saved no time, and processes would copy every batch.
    """
    cached = CachedDataset(loader.dataset, stores, loader.pin_memory)
    if loader.batch_size is None:  # the batch_sampler is an EpochBatches
        return DataLoader(cached, batch_sampler=loader.batch_sampler, collate_fn=_unchanged)
    return DataLoader(cached, loader.batch_size, sampler=loader.sampler, collate_fn=_unchanged)


def _unchanged(batch: tuple) -> tuple:
    """__getitems__ returns whole batches."""
    return batch
