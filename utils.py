"""Device, seed, and files of tensors: written whole or not at all, read without trusting them."""

import io
import pickle
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from errors import InputError
from files import write_atomically

CHECKPOINT_FORMAT = "dinov2-segmentation"
CHECKPOINT_VERSION = 1
# What a checkpoint of ours must hold, and of which type.
CHECKPOINT_FIELDS = {
    "backbone": str,
    "weights": str,
    "fingerprint": str,
    "head": str,
    "fine_tune": bool,
    "classes": list,
    "palette": list,
    "image_size": list,  # height, width
    "keep_ratio": bool,  # whether pictures keep their proportions, padded to image_size
    "mean": list,
    "std": list,
    "epoch": int,
    "metrics": dict,
    "model_state_dict": dict,
}


def select_device(name: str = "auto") -> torch.device:
    """ "auto" is cuda, else mps, else cpu; a name such as "cuda:1" must exist here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try auto") from error
    return device


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what libraries draw from)
    torch.manual_seed(seed)


def progress(items: Iterable, name: str, total: int | None = None) -> tqdm:
    return tqdm(items, name, total, leave=False, dynamic_ncols=True)


def save_tensors(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_tensors(path: Path) -> dict:
    """A dict of tensors and plain data on the CPU; code in the file is never run."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused, it is no plain file of tensors") from error
    except Exception as error:  # a cut or foreign file fails in many ways
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read, is it complete? ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    return content


def load_checkpoint(path: Path) -> dict:
    """A checkpoint of ours, its fields checked against CHECKPOINT_FIELDS."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; train one with train.py, or pass --model")
    content = load_tensors(path)
    if content.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path}: not a checkpoint of this project; make one with train.py")
    if content.get("version") != CHECKPOINT_VERSION:
        raise InputError(
            f"{path}: format version {content.get('version')}, this code reads "
            f"{CHECKPOINT_VERSION}; train again or use the code that wrote it"
        )
    for name, kind in CHECKPOINT_FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise InputError(f"{path}: its field {name!r} is missing or no {kind.__name__}")
    if len(content["palette"]) != len(content["classes"]):
        raise InputError(f"{path}: {len(content['classes'])} classes, other number of colours")
    return content
