"""Records of tensors, in files that other runs find again or in memory, and the room for them."""

import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from common.distributed import world_size
from utils import DAY, InputError, writing

DONE = b"\1"
DISK_FRACTION = 0.9  # of the free space
MEMORY_FRACTION = 0.5
UNUSED_DAYS = 14  # after which features are deleted
MEMORY_FRACTION_UNASKED = 0.25  # without --cache-features
CGROUP = Path("/sys/fs/cgroup")  # holds the memory limit of a container


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of one of the tensors that make up a record."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def empty(self, count: int, pin_memory: bool = False) -> Tensor:
        """Uninitialised tensor (count, *shape)."""
        return torch.empty(count, *self.shape, dtype=self.dtype, pin_memory=pin_memory)


class FileStore:
    """`count` records in NAME.bin, and in NAME.done one byte for each, DONE once it is written.

    Files of another length count as empty. Several processes and runs may write at the same time:
    the files never change their length, and two that write the same record write the same values.
    """

    def __init__(self, folder: Path, name: str, specs: Sequence[TensorSpec], count: int):
        self.specs = tuple(specs)
        self.count = count
        self.record_bytes = sum(spec.num_bytes for spec in specs)
        self._data = folder / f"{name}.bin"
        self._done = folder / f"{name}.done"

    def missing(self) -> list[int]:
        """The records that are not written yet, in order."""
        done = self._done.read_bytes() if self._is_whole() else b""
        return [record for record in range(self.count) if done[record : record + 1] != DONE]

    def prepare(self) -> None:
        """Create both files at their full length; as sparse files they take no space yet."""
        if self._is_whole():
            return
        with writing(self._data):
            self._data.parent.mkdir(parents=True, exist_ok=True)
            with open(self._done, "wb") as done, open(self._data, "ab") as data:
                done.truncate(self.count)
                data.truncate(self.count * self.record_bytes)

    def write(self, records: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """tensors: (B, *shape) of each spec, on the CPU, for B records."""
        with writing(self._data):
            with open(self._data, "r+b") as data:
                for record, *parts in zip(records, *tensors, strict=True):
                    data.seek(record * self.record_bytes)
                    for part in parts:
                        data.write(part.contiguous().numpy())
                data.flush()
                os.fsync(data.fileno())  # a power failure must not leave a mark without its record
            with open(self._done, "r+b") as done:
                for record in records:
                    done.seek(record)
                    done.write(DONE)

    def read(self, records: Sequence[int], pin_memory: bool = False) -> list[Tensor]:
        """(B, *shape) of each spec. The file is not mapped: cutting a mapped file would crash."""
        tensors = [spec.empty(len(records), pin_memory) for spec in self.specs]
        try:
            with open(self._data, "rb") as data:
                for row, record in enumerate(records):
                    data.seek(record * self.record_bytes)
                    for tensor in tensors:
                        buffer = memoryview(tensor[row].flatten().view(torch.uint8).numpy())
                        if data.readinto(buffer) != len(buffer):
                            raise EOFError
        except (OSError, EOFError) as error:
            raise InputError(f"{self._data}: deleted or cut while in use; start again") from error
        return tensors

    def _is_whole(self) -> bool:
        try:
            sizes = self._data.stat().st_size, self._done.stat().st_size
        except OSError:
            return False
        return sizes == (self.count * self.record_bytes, self.count)


class MemoryStore:
    """The same for some of the records, in the memory of this process."""

    def __init__(self, specs: Sequence[TensorSpec], records: Sequence[int]):
        self.specs = tuple(specs)
        self._rows = {record: row for row, record in enumerate(records)}
        self._tensors = [spec.empty(len(records)) for spec in specs]

    def write(self, records: Sequence[int], tensors: Sequence[Tensor]) -> None:
        rows = self._rows_of(records)
        for stored, tensor in zip(self._tensors, tensors, strict=True):
            stored[rows] = tensor

    def read(self, records: Sequence[int], pin_memory: bool = False) -> list[Tensor]:
        rows = self._rows_of(records)
        tensors = [stored[rows] for stored in self._tensors]
        return [tensor.pin_memory() for tensor in tensors] if pin_memory else tensors

    def _rows_of(self, records: Sequence[int]) -> Tensor:
        return torch.tensor([self._rows[record] for record in records], dtype=torch.int64)


def fits_unasked(num_bytes: int) -> bool:
    """Whether the memory has room for features that no flag asked for."""
    return num_bytes <= MEMORY_FRACTION_UNASKED * free_memory()


def stay_in_memory(stores: Sequence[FileStore], missing: Sequence[list[int]], folder: Path) -> bool:
    """Whether the features stay in memory, as the disk has no room; prints where, and how many.

    stores: of each view, that of validation last. missing: the records that each of them lacks.
    Raises InputError where neither disk nor memory has room.
    """
    views = len(stores) - 1
    root, to_compute = folder.parent, sum(map(len, missing))
    disk = sum(len(m) * s.record_bytes for s, m in zip(stores, missing, strict=True))
    pictures = sum(store.count for store in stores)
    memory = sum(store.count * store.record_bytes for store in stores)
    disk_room, memory_room = DISK_FRACTION * free_disk(root), MEMORY_FRACTION * free_memory()
    if world_size() > 1:
        memory_room = 0  # each process would hold all features
    if disk > disk_room and memory > memory_room:
        raise InputError(
            f"--cache-features {views} needs {disk / 1e9:.1f} GB on the disk or "
            f"{memory / 1e9:.1f} GB in memory; there are {disk_room / 1e9:.1f} GB below {root} "
            f"and {memory_room / 1e9:.1f} GB in memory; pass a smaller number, or make room"
        )
    if disk > disk_room:
        print(
            f"features: {pictures} pictures to compute, {memory / 1e9:.1f} GB in memory for this "
            f"run only, as {root} has no room"
        )
    elif to_compute:
        print(f"features: {to_compute} pictures to compute, {disk / 1e9:.1f} GB in {folder}")
    else:
        found = f"{views} view{'s' if views > 1 else ''}"
        print(f"features: {found} of {stores[0].count} pictures found in {folder}")
    delete_unused([other for other in root.glob("*") if other != folder])
    return disk > disk_room


def delete_unused(folders: Sequence[Path]) -> None:
    """Delete those whose about.json, which each run that uses them writes, is UNUSED_DAYS old."""
    for folder in folders:
        with suppress(OSError):  # another run deletes it at this moment, or it is none of ours
            age = time.time() - (folder / "about.json").stat().st_mtime
            if age > UNUSED_DAYS * DAY:
                shutil.rmtree(folder)


def free_disk(folder: Path) -> int:
    """Bytes that can be written below the folder, which need not exist yet."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_memory() -> int:
    """Bytes that can be taken without swapping, or without being killed in a container."""
    free = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())  # ValueError: "max", no limit
        used = int((CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").open())
    except (OSError, ValueError):
        return free
    # The page cache counts as used, but is given up when memory is needed.
    return min(free, max(0, limit - used + int(statistics.get("inactive_file", 0))))
