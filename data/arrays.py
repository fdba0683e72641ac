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
    plane = np.ascontiguousarray(array.reshape(array.shape[:2]))
    if plane.dtype.kind == "f":
        return plane
    if plane.dtype.itemsize == 1:
        return plane.view(np.uint8) if plane.dtype.kind != "i" else plane.astype(np.int32)
    return plane.astype(np.uint16 if plane.dtype == np.uint16 else np.int64).clip(-(2**30), 2**30)


def array_size(path: Path) -> tuple[int, int]:
    """(H, W) of the array in a .npy file, read from its header."""
    return _open(path).shape[:2]


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable array ({reason}); save it by np.save") from error
