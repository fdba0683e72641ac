"""Image and mask pairs as tensors. `python datasets.py --data DIR` reports on a data set."""

from collections.abc import Iterator, Sequence

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

import commands
import config
from augment import Augment, build_augment
from checks import SegmentationData, inspect_data, summary
from downloads import download
from errors import InputError, exits_cleanly
from geometry import Resize
from layouts import find_splits
from masks import MaskEncoding
from pairing import Pair
from report import write_augment_sheet, write_report
from scan import read_pair
from transforms import eval_transform, to_tensor


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
        image, mask = read_pair(pair)
        target = self.encoding.decode(mask)
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


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = commands.dataset_parser().parse_args(argv)
    root = download(args.download) if args.download else args.data
    folders = (args.train_images, args.train_masks, args.valid_images, args.valid_masks)
    data = inspect_data(find_splits(root, folders, args.valid_fraction, args.classes))
    write_report(data)
    if args.show_augment:
        resize = Resize(args.imgsz or config.TRAIN_SIZE, args.keep_ratio)
        write_augment_sheet(data, build_augment(args.augment, resize, args.seed))
    if data.problems:
        raise InputError(summary(data.problems, len(data.scans)))


if __name__ == "__main__":
    main()
