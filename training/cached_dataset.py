"""A data set and loaders that read stored features in place of images."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.distributed import world_size
from common.signals import worker_init
from data.pairs import read_target
from datasets import SegmentationDataset, epoch_and_picture, sample_index
from training.feature_store import FileStore, MemoryStore

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

    def __getitems__(self, samples: Sequence[int]) -> tuple[Tensor, Tensor | list[Tensor]]:
        """Features (B, C, h, w), and targets (B, H, W) or a list of them, of an epoch's samples."""
        numbers = [epoch_and_picture(sample, len(self)) for sample in samples]
        epoch = numbers[0][0] if numbers else 1
        store = self.stores[(epoch - 1) % len(self.stores)]
        features, *targets = store.read([picture for _, picture in numbers], self.pin_memory)
        return features, targets[0] if targets else [self._target(sample) for sample in samples]

    def __getitem__(self, sample: int) -> tuple[Tensor, Tensor]:
        features, targets = self.__getitems__([sample])
        return features[0], targets[0]

    def _target(self, sample: int) -> Tensor:
        """(H', W') uint8: validation targets have the size of their masks, so none is stored."""
        return torch.from_numpy(read_target(self.pictures.pair(sample), self.pictures.encoding))


def images_of(loader: DataLoader, epoch: int, records: Sequence[int]) -> DataLoader:
    """Loads images (B, 3, H, W) and targets of some pictures as they are in an epoch, in batches.

    loader: of images, as build_loaders makes it. records: the pictures' numbers.
    """
    size = loader.batch_size or loader.batch_sampler.batch_size // world_size()
    samples = [sample_index(epoch, record, len(loader.dataset)) for record in records]
    return DataLoader(
        loader.dataset,
        batch_sampler=[samples[i : i + size] for i in range(0, len(samples), size)],
        num_workers=loader.num_workers if samples else 0,
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
    options = {"collate_fn": _unchanged, "generator": loader.generator}
    if loader.batch_size is None:  # the batch_sampler is an EpochBatches
        return DataLoader(cached, batch_sampler=loader.batch_sampler, **options)
    return DataLoader(cached, loader.batch_size, sampler=loader.sampler, **options)


def _unchanged(batch: tuple) -> tuple:
    """__getitems__ returns whole batches."""
    return batch
