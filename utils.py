"""Device, seed, progress bar, errors that users can mend, files written whole or not at all."""

import os
import platform
import random
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import numpy as np
import psutil
import torch
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
    if "," in name and name.replace(",", "").isdigit():
        start = f"CUDA_VISIBLE_DEVICES={name} torchrun --nproc_per_node {name.count(',') + 1}"
        raise InputError(f"--device {name}: a process uses one; try {start} (docs/clusters.md)")
    try:
        device = torch.device(f"cuda:{name}" if name.isdecimal() else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try auto") from error
    return device


def select_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; on a CPU without its arithmetic float32, and a line says so."""
    dtype = getattr(torch, name)
    if device.type == "cpu" and not cpu_computes_in(dtype):
        return _float32_instead_of(name)
    return dtype


def cpu_computes_in(dtype: torch.dtype) -> bool:
    """Whether torch has fast matrix products of a type on this CPU.

    Where the instructions are missing, bfloat16 and float16 take some 5 to 25 times as long as
    float32.
    """
    if dtype == torch.float32:
        return True
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    # A private name: where it is missing, float32 is the safe answer.
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)
    return supported is not None and supported()


def _float32_instead_of(name: str) -> torch.dtype:
    print(f"this CPU has no arithmetic for {name}: computing in float32, which is faster here")
    return torch.float32


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """deterministic: make torch use only deterministic algorithms, some of which are slower."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what libraries draw from)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def amp_dtype(device: torch.device) -> torch.dtype | None:
    """The type for mixed precision: bfloat16 where the chip has it, else float16.

    None on a CPU without bfloat16, for computing in float32; a line says so.
    """
    if device.type == "cpu" and not cpu_computes_in(torch.bfloat16):
        _float32_instead_of("bfloat16")
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def progress(items: Iterable[T] | None, name: str, total: int | None = None) -> "tqdm[T]":
    """The items, with a progress bar on a terminal, else with a line each minute.

    Under torchrun the main process alone shows it.
    """
    hidden = os.environ.get("RANK", "0") != "0"
    if sys.stderr.isatty():
        return tqdm(items, name, total, leave=False, dynamic_ncols=True, disable=hidden)
    left = ", about {remaining} left" if total or hasattr(items, "__len__") else ""
    line = f"{{desc}}: {{n_fmt}} of {{total_fmt}} done in {{elapsed}}{left}\n"
    return tqdm(
        items, name, total, leave=False, disable=hidden, bar_format=line,
        delay=SECONDS_PER_LINE, mininterval=SECONDS_PER_LINE, miniters=1,
    )  # fmt: skip


class InputError(Exception):
    """An error that the user can mend: says what was found, what was expected, what to do."""

    def __init__(self, message: str):
        # A DataLoader puts the traceback of its worker before the message.
        if message.startswith("Caught ") and "Traceback" in message:
            message = re.split(r"\n[\w.]+: ", message)[-1].strip()
        super().__init__(without_secrets(message))


def public_name(source: str) -> str:
    """What people may see of a source: an address without user, password, query; a path as it is.

    Everything that is printed or written names a source by this function.
    """
    scheme, mark, rest = source.partition("://")
    return f"{scheme}://{_host_and_path(rest)}" if mark else source


def without_secrets(text: str) -> str:
    """The text with the public name of each address in it, which a Path may have left one slash."""
    address = r"(\w[\w+.-]+://?)((?:[^/?#\n]*@)?\S*?)(?=[)'\":;,.]*(?:\s|$))"
    return re.sub(address, lambda found: found[1] + _host_and_path(found[2]), text)


def command_line() -> str:
    """The script and its arguments, as one would type them but for the secrets of addresses."""
    return shlex.join([Path(sys.argv[0]).name, *map(public_name, sys.argv[1:])])


def _host_and_path(rest: str) -> str:
    """host:port/path of what follows `://`; parts of the path that hold settings are left out."""
    host = re.split(r"[/?#]", rest)[0]
    # A password may hold any sign: if the host looks like "user:pass", the user's part is longer.
    if "@" in host or re.search(r":(?!\d*$)", re.sub(r"^\[.*\]", "", host)):
        rest = rest.rpartition("@")[2]
    path = re.split(r"[?#;&]|%3[bf]|%26", rest, maxsplit=1, flags=re.IGNORECASE)[0]
    path = path.rpartition("@")[2]
    return "/".join(part for part in path.split("/") if not re.search("=|%3[dD]", part))


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
    folder = OUTPUTS / name
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    return folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the disk in the with-block into an InputError that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot write ({error.strerror})") from error


def write_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the whole new one.

    durable: flush to the disk first, so that the file survives a power failure; slower.
    """
    temporary = temporary_path(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def printable(path: Path | str) -> str:
    """The path as text that UTF-8 can encode; bytes of a name that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def result_name(name: str, room: int) -> str:
    """A source's name as results bear it: one that lists, tables and archives can hold.

    Line breaks, bytes that are no UTF-8 and spaces at the ends become underscores. What is too long
    to leave `room` bytes for an ending is cut, with a hash at its end, so that two stay two.
    """
    name = re.sub(r"^\s|\s$|[^\S ]|[\ud800-\udfff]", "_", name)
    whole, most = name.encode(), MAX_NAME_BYTES - room
    if len(whole) <= most:
        return name
    mark = f"_{sha256(whole).hexdigest()[:8]}"
    return whole[: most - len(mark)].decode(errors="ignore") + mark


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
