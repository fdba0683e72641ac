"""Features of the frozen backbone, computed once: training and validation then run the head only.

View v holds the features of the pictures as epoch v + 1 of training on images would see them.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.distributed import from_main, gathered, largest, rank, world_size
from common.job_record import JobRecord
from common.memory import out_of_memory
from common.signals import Stopped, StopSignals, worker_init
from config import OUTPUTS
from data.pairs import read_target
from datasets import PREVIEWED, SegmentationDataset, epoch_and_picture, own_indices, sample_index
from model import SegmentationModel
from networks.weights import fingerprint
from training.feature_store import (
    FileStore,
    MemoryStore,
    TensorSpec,
    fits_unasked,
    stay_in_memory,
)
from training.run_info import record_job
from utils import InputError, progress, write_atomically

FORMAT_VERSION = 2  # of the files' format; part of the key
TIMED = 20  # pictures from which on the time that they take is told beforehand
FOLDER = OUTPUTS / "features"

Store = FileStore | MemoryStore


def cached_loaders(
    model: SegmentationModel,
    loaders: tuple[DataLoader, DataLoader],
    views: int,
    settings: dict,
    root: Path = FOLDER,
) -> tuple[DataLoader, DataLoader]:
    """build_loaders' loaders for training and validation, with features in place of images.

    Training features (B, C, h, w) are float16, those for validation float32. Features that are not
    in root yet are computed first. Raises InputError where neither disk nor memory has room.

    settings: what decides the features besides pictures, their size and the weights.
    """
    record = _record(model, loaders, settings)
    folder = root / record.key
    image_size = loaders[0].dataset.resize.image_size
    shape = _feature_shape(model, image_size)
    stored = [TensorSpec(shape, torch.float16), TensorSpec(image_size, torch.uint8)]
    stores = [
        FileStore(folder, f"train{epoch}", stored, len(loaders[0].dataset))
        for epoch in range(1, views + 1)
    ]
    of_valid = [TensorSpec(shape, torch.float32)]
    stores.append(FileStore(folder, "valid", of_valid, len(loaders[1].dataset)))
    missing = from_main(lambda: [store.missing() for store in stores])
    if from_main(lambda: stay_in_memory(stores, missing, folder)):
        missing = [range(store.count) for store in stores]
        stores = [MemoryStore(store.specs, range(store.count)) for store in stores]
    else:
        missing = [records[rank() :: world_size()] for records in missing]
        from_main(lambda: _open_folder(folder, record, stores))
    todo = [
        (store, images_of(loaders[0], epoch, records))
        for epoch, (store, records) in enumerate(zip(stores[:-1], missing[:-1], strict=True), 1)
    ]
    _compute([*todo, (stores[-1], images_of(loaders[1], 1, missing[-1]))], model)
    return cached_loader(loaders[0], stores[:-1]), cached_loader(loaders[1], stores[-1:])


def cached_valid_loader(model: SegmentationModel, valid_loader: DataLoader) -> DataLoader:
    """The validation loader with float32 features in place of images, kept in memory.

    The loader as it is where they would take too much memory.
    """
    shape = _feature_shape(model, valid_loader.dataset.resize.image_size)
    spec, count = TensorSpec(shape, torch.float32), len(valid_loader.dataset)
    if not all(gathered(fits_unasked(count * spec.num_bytes))):
        return valid_loader
    own, previewed = own_indices(count), range(min(PREVIEWED, count))
    records = [*own, *(record for record in previewed if record not in own)]
    store = MemoryStore([spec], records)
    _compute([(store, images_of(valid_loader, 1, records))], model)
    return cached_loader(valid_loader, [store])


@torch.no_grad()
def _probe(model: SegmentationModel) -> Tensor:
    """Features (C, 3, 5) of a fixed image, which show how many there are and how they come about.

    They tell two versions of a backbone's code apart whose weights are equal.
    """
    height, width = (count * model.backbone.patch_size for count in (3, 5))
    image = torch.linspace(-1, 1, 3 * height * width, device=model.device)
    # forward(): calling a backbone that --compile has wrapped would compile it for this size.
    return torch.cat(model.backbone.forward(image.view(1, 3, height, width)), 1)[0]


def _feature_shape(model: SegmentationModel, image_size: tuple[int, int]) -> tuple[int, int, int]:
    """(C, h, w) of a picture's features."""
    height, width = (-(-side // model.backbone.patch_size) for side in image_size)
    return len(_probe(model)), height, width


def _record(
    model: SegmentationModel,
    loaders: tuple[DataLoader, DataLoader],
    settings: dict,
) -> JobRecord:
    """All that decides what the features and targets are.

    Device and batch size are left out: they change values by far less than float16 does.
    """
    train, valid = (loader.dataset for loader in loaders)
    more = {
        "version": FORMAT_VERSION,
        "resize": asdict(train.resize),
        "amp": str(model.amp or torch.float32).removeprefix("torch."),
        "albumentations": version("albumentations"),
        "opencv": cv2.__version__,
        # Two digits: kernels differ in the last ones, from machine to machine.
        "probe": [f"{value:.2g}" for value in _probe(model)[:32, 1, 2].tolist()],
    }
    return record_job(settings | more, fingerprint(model.backbone), train, valid)


def _open_folder(folder: Path, record: JobRecord, stores: Sequence[FileStore]) -> None:
    """Create the files, and tell by their time that the features are used."""
    for store in stores:
        store.prepare()
    write_atomically(folder / "about.json", record.to_json().encode())


def _compute(views: Sequence[tuple[Store, DataLoader]], model: SegmentationModel) -> None:
    """Store the features of each view's images; when this returns, every process has."""
    model.eval()
    batches = [
        (store, [epoch_and_picture(sample, len(loader.dataset))[1] for sample in samples])
        for store, loader in views
        for samples in loader.batch_sampler
    ]
    total = sum(len(records) for _, records in batches)
    todo = zip(batches, chain.from_iterable(loader for _, loader in views), strict=True)
    with (
        ThreadPoolExecutor(1) as writer,
        progress((), "Features", total) as bar,
        out_of_memory("pass a smaller --batch or --imgsz, or fewer --workers"),
        StopSignals("finishing these pictures") as signals,
    ):
        written = writer.submit(tuple)
        for _ in range(largest(len(batches)) + 1):  # once more for a signal in the last batch
            if stop := largest(signals.number or 0):  # in all processes at once
                written.result()
                raise Stopped(_stopped_at(views[0][0], bar.n, total), stop)
            for (store, records), (images, targets) in islice(todo, 1):
                dtype = store.specs[0].dtype
                if bar.n == 0 and total >= TIMED:
                    seconds = _seconds_per_picture(model, images[:1], dtype)
                    bar.write(f"features: at most about {seconds * total / 60:.1f} minutes")
                tensors = [_extract(model, images, dtype), targets][: len(store.specs)]
                written.result()  # at most one batch waits to be written
                written = writer.submit(store.write, records, tensors)
                bar.update(len(records))
        written.result()
    gathered(True)  # waits for the last process


def _seconds_per_picture(model: SegmentationModel, image: Tensor, dtype: torch.dtype) -> float:
    """image: (1, 3, H, W). In batches, a picture takes no longer than this."""
    _extract(model, image, dtype)  # the first call includes the warm-up
    started = time.perf_counter()
    _extract(model, image, dtype)
    return time.perf_counter() - started


def _stopped_at(store: Store, done: int, total: int) -> str:
    saved = "all of these are saved"
    if isinstance(store, MemoryStore):
        saved = "they were in memory and are lost"
    return (
        f"stopped after the features of {done} of {total} pictures, {saved}; continue with the "
        "same command"
    )


@torch.no_grad()
def _extract(model: SegmentationModel, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Features (B, C, h, w) of images (B, 3, H, W), on the CPU."""
    features = model.extract(images.to(model.device, non_blocking=True)).to(dtype)
    if dtype == torch.float16 and not features.isfinite().all():
        raise InputError("these features do not fit into float16; leave out --cache-features")
    return features.cpu()


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
        if targets:
            return features, targets[0]
        # Validation targets have the size of their masks (H', W'), so none is stored.
        pairs = map(self.pictures.pair, samples)
        encoding = self.pictures.encoding
        return features, [torch.from_numpy(read_target(pair, encoding)) for pair in pairs]

    def __getitem__(self, sample: int) -> tuple[Tensor, Tensor]:
        features, targets = self.__getitems__([sample])
        return features[0], targets[0]


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
    # __getitems__ returns whole batches.
    options = {"collate_fn": lambda batch: batch, "generator": loader.generator}
    if loader.batch_size is None:  # the batch_sampler is an EpochBatches
        return DataLoader(cached, batch_sampler=loader.batch_sampler, **options)
    return DataLoader(cached, loader.batch_size, sampler=loader.sampler, **options)
