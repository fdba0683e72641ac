"""One writer per folder: a lock that ends with its process, however that ends."""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from common.distributed import is_main
from utils import InputError, writing

LOCK_FILE = ".lock"


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock the folder in the with-block; raises InputError if another process has locked it.

    The system frees the lock of a process that was killed. Its file stays in the folder, as a file
    that is deleted could be locked twice. Under torchrun the main process locks for all.
    """
    if not is_main():
        yield
        return
    path = folder / LOCK_FILE
    with writing(path):
        file = path.open("a+")
    with file:
        if not _lock(file):
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(
                f"{folder} is in use by {owner}; wait until it has ended, or pass another --out-dir"
            )
        file.truncate(0)
        with suppress(OSError):  # a full disk is told by what is written next
            os.write(file.fileno(), f"process {os.getpid()} on {platform.node()}".encode())
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: TextIO) -> bool:
    """Whether this process has the lock now; True too on a file system that has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(2**20)  # a locked byte cannot be read: take one behind the text
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
