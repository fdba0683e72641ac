"""Where files may go, and how: below the output folder, whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from config import OUTPUTS
from errors import InputError


def output_folder(name: str) -> Path:
    """outputs/NAME, made if need be; a name that leads out of outputs/ is refused."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"--out-dir {name}: give a name below {OUTPUTS}/")
    folder = OUTPUTS / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from error
    return folder


def write_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Under a temporary name first, then renamed: what was there stays until all is written.

    durable: so that it holds when the power fails, too; slower.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(f"{path}: cannot write ({error.strerror})") from error


def remove_leftovers(folder: Path) -> None:
    """Temporary files of a writer that was killed."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            path.unlink()
