"""Whether the disk or the memory has room for cached features."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import psutil

from common.distributed import world_size
from training.cached_dataset import View
from utils import InputError

DISK_FRACTION = 0.9  # of the free space
MEMORY_FRACTION = 0.5
MEMORY_FRACTION_UNASKED = 0.25  # without --cache-features
CGROUP = Path("/sys/fs/cgroup")  # holds the memory limit of a container


def fits_unasked(num_bytes: int) -> bool:
    """Whether the memory has room for features that no flag asked for."""
    return num_bytes <= MEMORY_FRACTION_UNASKED * free_memory()


def stay_in_memory(views: Sequence[View], missing: Sequence[list[int]], folder: Path) -> bool:
    """Whether the features stay in memory, as the disk has no room; prints where, and how many.

    views: the validation view last. missing: the records that each lacks in the folder. Raises
    InputError where neither disk nor memory has room for all views.
    """
    sizes = [
        (len(m) * v.record_bytes, len(v) * v.record_bytes)
        for v, m in zip(views, missing, strict=True)
    ]
    sizes = [sizes[-1], *sizes[:-1]]  # validation needs its part with any number of views
    disk, memory = (list(accumulate(column))[1:] for column in zip(*sizes, strict=True))
    root, to_compute = folder.parent, sum(map(len, missing))
    in_memory = _disk_is_full(disk, memory, root)
    if in_memory:
        print(
            f"features: {sum(map(len, views))} pictures to compute, {memory[-1] / 1e9:.1f} GB in "
            f"memory for this run only, as {root} has no room"
        )
    elif to_compute:
        print(f"features: {to_compute} pictures to compute, {disk[-1] / 1e9:.1f} GB in {folder}")
    else:
        found = f"{len(disk)} view{'s' if len(disk) > 1 else ''}"
        print(f"features: {found} of {len(views[0])} pictures found in {folder}")
    others = sum(allocated_bytes(other) for other in root.glob("*") if other != folder)
    if others:
        print(f"features: {others / 1e9:.1f} GB of other settings in {root}; safe to delete")
    return in_memory


def _disk_is_full(disk: Sequence[int], memory: Sequence[int], folder: Path) -> bool:
    """Whether the disk has no room for the features but the memory has.

    disk, memory: bytes that 1, 2, ... views to train on would add. Raises InputError where neither
    has room for all of them.
    """
    disk_room, memory_room = DISK_FRACTION * free_disk(folder), MEMORY_FRACTION * free_memory()
    if world_size() > 1:
        memory_room = 0  # each process would hold all features
    fits = [(d <= disk_room, m <= memory_room) for d, m in zip(disk, memory, strict=True)]
    if any(fits[-1]):
        return not fits[-1][0]
    count = sum(map(any, fits))
    advice = f"pass --cache-features {count}" if count else "leave out --cache-features"
    raise InputError(
        f"--cache-features {len(disk)} needs {disk[-1] / 1e9:.1f} GB on the disk or "
        f"{memory[-1] / 1e9:.1f} GB in memory; it may take {disk_room / 1e9:.1f} GB below "
        f"{folder} or {memory_room / 1e9:.1f} GB in memory; {advice}, or make room"
    )


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


def allocated_bytes(folder: Path) -> int:
    """Disk space of all files below the folder; holes of sparse files take none."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another run has just deleted or renamed it
            stat = path.stat()
            size = stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size
            total += size if path.is_file() else 0
    return total
