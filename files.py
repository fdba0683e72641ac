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


def write_atomically(path: Path, content: bytes) -> None:
    """Under a temporary name first, then renamed: what was there stays until all is written."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write ({error.strerror})") from error
