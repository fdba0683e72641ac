"""Records of tensors of fixed shapes, in files that other runs find again or in memory."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from utils import InputError, writing

DONE = b"\1"


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
        """Records that lie side by side are returned as a view, which must not be changed."""
        rows = self._rows_of(records)
        if len(rows) and torch.equal(rows, torch.arange(len(rows)) + rows[0]):
            return [stored[rows[0] : rows[-1] + 1] for stored in self._tensors]
        copies = [spec.empty(len(rows), pin_memory) for spec in self.specs]
        for stored, copy in zip(self._tensors, copies, strict=True):
            torch.index_select(stored, 0, rows, out=copy)
        return copies

    def _rows_of(self, records: Sequence[int]) -> Tensor:
        return torch.tensor([self._rows[record] for record in records], dtype=torch.int64)
