"""Whether the disk or the memory has room for cached features."""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from common.distributed import world_size
from training.feature_store import FileStore
from utils import DAY, InputError

DISK_FRACTION = 0.9  # of the free space
MEMORY_FRACTION = 0.5
UNUSED_DAYS = 14  # after which features are deleted
MEMORY_FRACTION_UNASKED = 0.25  # without --cache-features
CGROUP = Path("/sys/fs/cgroup")  # holds the memory limit of a container


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
