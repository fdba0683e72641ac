"""Masks saved as NumPy arrays."""

from pathlib import Path

import numpy as np

from utils import InputError


def is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def read_array(path: Path) -> np.ndarray:
    """A mask's values (H, W) from a .npy file of bool or numbers, (H, W) or (H, W, 1)."""
    array = _open(path)
    is_plane = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not is_plane or array.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: an array {array.shape} of {array.dtype}; expected (H, W) of bool or "
            "numbers, a value for each pixel"
        )
    plane = array.reshape(array.shape[:2])
    if plane.dtype.kind == "f":
        return np.array(plane)
    return plane.astype(np.uint8 if plane.dtype in (bool, np.uint8) else np.int64)


def array_size(path: Path) -> tuple[int, int]:
    """(H, W) of the array in a .npy file, read from its header."""
    return _open(path).shape[:2]


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable array ({reason}); save it by np.save") from error
