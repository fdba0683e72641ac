"""Device, seed, progress bar, errors that users can mend, files written whole or not at all."""

import os
import platform
import random
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PureWindowsPath
from typing import Generic, TypeVar

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from tqdm import tqdm

from config import OUTPUTS

MAX_NAME_BYTES = 255  # of a file name, on all common file systems
DAY = 24 * 3600.0  # seconds
CLOCK = 2.0  # seconds by which the times of files and processes may be off
SECONDS_PER_LINE = 60.0  # of progress, where stderr is not a terminal

T = TypeVar("T")


def select_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is cuda, else mps, else cpu."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if "," in name:
        raise InputError(
            f"--device {name}: each process uses one device; start torchrun --nproc_per_node "
            f"{name.count(',') + 1} with CUDA_VISIBLE_DEVICES={name} (docs/clusters.md)"
        )
    try:
        device = torch.device(f"cuda:{name}" if name.isdecimal() else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try auto") from error
    return device


def select_dtype(name: str, device: torch.device) -> torch.dtype:
    """The floating-point type of that name, after a small computation on the device with it."""
    dtype = getattr(torch, name)
    try:
        x = torch.ones(1, 2, 8, 8, dtype=dtype, device=device)
        x = F.layer_norm(F.conv2d(x, x, padding=4), (9,))
        F.gelu(F.scaled_dot_product_attention(x, x, x) @ x.transpose(-1, -2)).softmax(-1).sum()
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--dtype {name} cannot run on {device} ({reason}); use float32"
        ) from error
    return dtype


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what libraries draw from)
    torch.manual_seed(seed)


def make_deterministic() -> None:
    """Make torch use only deterministic algorithms, some of which are slower."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def amp_dtype(device: torch.device) -> torch.dtype:
    """The type for mixed precision: bfloat16 where the chip has it, else float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def progress(
    items: Iterable[T], name: str, total: int | None = None
) -> "tqdm[T] | ProgressLines[T]":
    """The items, with a progress bar on a terminal, else with a line each minute.

    Under torchrun the main process alone shows it.
    """
    hidden = os.environ.get("RANK", "0") != "0"
    if hidden or sys.stderr.isatty():
        return tqdm(items, name, total, leave=False, dynamic_ncols=True, disable=hidden)
    return ProgressLines(items, name, total)


class ProgressLines(Generic[T]):
    """As much of tqdm as is used here, for log files: a line each minute, in place of a bar."""

    def __init__(self, items: Iterable[T], name: str, total: int | None):
        self._items, self._name, self.n = items, name, 0
        self.total = len(items) if total is None and hasattr(items, "__len__") else total
        self._started = self._told = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            yield item
            self.update()

    def __enter__(self) -> "ProgressLines[T]":
        return self

    def __exit__(self, *_) -> None:
        pass

    def write(self, line: str) -> None:
        print(line, flush=True)

    def update(self, count: int = 1) -> None:
        self.n += count
        now = time.monotonic()
        if now - self._told < SECONDS_PER_LINE:
            return
        self._told = now
        minutes = (now - self._started) / 60
        line = f"{self._name}: {self.n} done in {minutes:.0f} min"
        if self.total:
            left = minutes * (self.total - self.n) / self.n
            line = line.replace("done", f"of {self.total} done") + f", about {left:.0f} min left"
        print(line, file=sys.stderr, flush=True)


class InputError(Exception):
    """An error that the user can mend: says what was found, what was expected, what to do."""

    def __init__(self, message: str):
        # A DataLoader puts the traceback of its worker before the message.
        if message.startswith("Caught ") and "Traceback" in message:
            message = re.split(r"\n[\w.]+: ", message)[-1].strip()
        super().__init__(message)


def first_of(items: Sequence[str], count: int = 8) -> str:
    """The first items, joined by commas, for a message; "..." stands for the others."""
    return ", ".join([*items[:count], *(["..."] if len(items) > count else [])])


def output_folder(name: str) -> Path:
    """Make outputs/NAME and return it; raises InputError for a name that leads out of outputs/.

    Temporary files of writers that were killed are deleted there, sub-folders included.
    """
    for path in (Path(name), PureWindowsPath(name)):  # "C:x" and "\\x" lead out on Windows
        if path.anchor or ".." in path.parts:
            raise InputError(f"--out-dir {name}: give a name below {OUTPUTS}/")
    if os.name == "nt" and not is_windows_name(name):
        raise InputError(f"--out-dir {name}: Windows takes no such name; use letters, digits, - _")
    folder = OUTPUTS / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from error
    remove_leftovers(folder)
    return folder


def is_windows_name(path: str) -> bool:
    """Whether Windows takes each part of a relative path: no device's name, no < > : " | ? *."""
    device = r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$"
    return not any(
        re.match(device, part) or re.search(r'[<>:"|?*\x00-\x1f]|[ .]$', part)
        for part in PureWindowsPath(path).parts
    )


def write_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the whole new one.

    durable: flush to the disk first, so that the file survives a power failure; slower.
    """
    temporary = temporary_path(path)
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


def printable(path: Path | str) -> str:
    """The path as text that UTF-8 can encode; bytes of a name that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def temporary_path(path: Path, suffix: str = "") -> Path:
    """A name beside `path` that no other writer uses: .STEM.HOST-PID-RANDOM.part + suffix.

    It fits the 255 bytes of file systems. suffix: for writers that look at it, such as ".mp4".
    """
    owner = f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part{suffix}"
    stem = f".{path.name}".encode(errors="surrogateescape")[: MAX_NAME_BYTES - len(owner)]
    return path.with_name(stem.decode(errors="ignore") + owner)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, for the with-block to fill and move to `path`."""
    remove_leftovers(path.parent, path.name)
    folder = temporary_path(path)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete the temporary files below `folder` whose writer has ended; name: those of one path.

    Files of another machine's writers are deleted once they are a day old.
    """
    for path in list(folder.glob(f".{escape(name)}.*.part*" if name else "**/.*.part*")):
        with suppress(OSError):
            if not _is_being_written(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_being_written(path: Path) -> bool:
    changed = path.stat().st_mtime
    owner = re.search(r"\.(\w*)-(\d+)-[0-9a-f]{8}\.part(\.\w+)?$", path.name)
    if owner is None:
        return path.is_dir()  # not one of ours
    if owner[1] != _host():
        return time.time() - changed < DAY
    try:
        return psutil.Process(int(owner[2])).create_time() <= changed + CLOCK
    except psutil.Error:
        return False


def _host() -> str:
    return re.sub(r"\W", "", platform.node())[:16]
