"""Files of tensors: written whole or not at all, read without running code in them."""

import argparse
import io
import pickle
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils import InputError, write_atomically


def save_tensors(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue(), durable=True)


def load_tensors(path: Path, mapped: bool = False) -> dict:
    """A dict of tensors and plain data on the CPU; code in the file is never run.

    mapped: map the file instead of reading it, for files as large as the memory.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    mapped = mapped and zipfile.is_zipfile(path)  # the format before torch 1.6 cannot be mapped
    _check_archive(path)
    try:
        # Namespace: flags beside the weights, as many training scripts save them.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of unusual content, refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, it is no plain file of tensors; save a model's state_dict() alone"
        ) from error
    except Exception as error:  # a cut or foreign file fails in many ways
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read, is it complete? ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    check_names(path, content)
    return content


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in the Hugging Face hub's format, which cannot hold anything else."""
    if find_spec("safetensors") is None:
        raise InputError(f"{path} needs the package safetensors: pip install safetensors")
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # a cut or foreign file
        raise InputError(f"{path}: cannot be read, is it complete? ({error})") from error


def check_names(path: Path | str, content: dict) -> None:
    """Raise InputError unless all keys are strings."""
    if not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: holds names that are no text, expected a dict of tensors")


def _check_archive(path: Path) -> None:
    """Refuse archives with code, and compressed ones, which could unpack to any size.

    torch.save never compresses.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # not an archive, or a broken one: torch.load reports it
        return
    if any("/code/" in e.filename or e.filename.endswith("/archive_format") for e in entries):
        raise InputError(
            f"{path}: refused, it is TorchScript or torch.export's, which holds code; save its "
            "state_dict() instead"
        )
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size or any(entry.compress_type for entry in entries):
        raise InputError(f"{path}: refused, it would unpack to {unpacked / 1e6:.0f} MB")


def load_published(path: Path, mapped: bool = False) -> dict[str, Tensor]:
    """The state dict of a published file: {"state_dict": ...}, as MMSegmentation saves, or bare."""
    content = load_tensors(path, mapped)
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        raise InputError(f"{path}: its state_dict is a {type(state).__name__}, expected a dict")
    check_names(path, state)
    return state


def check_state(state: dict, expected: dict[str, Tensor], subject: str) -> None:
    """Raise InputError unless the tensors' names and shapes are those of expected.

    subject: start of the message, such as "x.pth is not the model y".
    """
    found = {name: _shape(value) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    if found != wanted:
        name = min(set(found.items()) ^ set(wanted.items()), key=lambda item: str(item[0]))[0]
        raise InputError(
            f"{subject}: {str(name)[:100]} is {found.get(name, 'missing')}, expected "
            f"{wanted.get(name, 'nothing of that name')}"
        )


def _shape(value: Any) -> tuple[int, ...] | str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    plain = value.layout == torch.strided and value.device.type != "meta"
    return tuple(value.shape) if plain else "a tensor without plain numbers"


def hub_file(url: str, sha256: str | None = None) -> Path:
    """The file in torch.hub's folder; downloaded to a temporary name, with a bar, if need be.

    sha256: its checksum, checked while it is downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
    except RuntimeError as error:  # the checksum differs
        raise InputError(f"{url}: not the published file ({error}); try again later") from error
    except OSError as error:
        raise InputError(
            f"cannot download {url} ({error}); fetch it elsewhere and put it into {path.parent}"
        ) from error
    return path
