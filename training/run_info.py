"""What a run depends on, and run.json: its command, versions, seed, device and final scores."""

import json
import math
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.distributed import is_main, world_size
from common.job_record import JobRecord, record_files
from config import THIS_REPO
from datasets import SegmentationDataset
from utils import command_line, write_atomically

PACKAGES = ("torchvision", "albumentations", "opencv-python-headless", "numpy", "pillow")


def write_run_facts(folder: Path, seed: int, device: torch.device, resumed: bool) -> None:
    """Write run.json: a list with an entry for each start; only a resumed run keeps the others."""
    facts = {
        "command": command_line(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": {"torch": torch.__version__, **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "device": _name(device),
        "processes": world_size(),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if is_main():
        _write(folder, [*(_entries(folder) if resumed else []), facts])


def write_final_scores(folder: Path, class_names: Sequence[str], scores: dict, about: dict) -> None:
    """Add `scores` to the last entry of run.json. scores: of evaluate. about: more to write."""
    entries = _entries(folder)
    if not entries:
        return
    final = {name: scores[name] for name in ("loss", "pixel_acc", "miou")}
    for score in ("iou", "boundary_iou"):
        values = zip(class_names, scores[score].tolist(), strict=True)
        final[score] = {name: None if math.isnan(value) else value for name, value in values}
    entries[-1]["scores"] = about | final
    _write(folder, entries)


def record_job(
    settings: dict, model: str, train: SegmentationDataset, valid: SegmentationDataset
) -> JobRecord:
    """The JobRecord of a job that reads both data sets. model: fingerprint of its weights."""
    encoding = train.encoding
    classes = {
        "mask_values": sorted(map(list, encoding.values.items())),
        "mask_colours": sorted([*colour, id_] for colour, id_ in encoding.colours.items()),
        "other_mask_values": encoding.others,
    }
    files = record_files(path for pair in (*train.pairs, *valid.pairs) for path in pair.files)
    more = {"train_pictures": len(train), "value_range": str(train.pairs[0].value_range)}
    return JobRecord(settings | more, model, classes, *files)


def replace_earlier_run(folder: Path) -> None:
    """Say that a run without --resume replaces an earlier one, and remove its previews."""
    if not is_main():
        return
    if (folder / "last.pth").is_file():
        print(f"{folder}: the earlier run there is replaced (--resume would continue it)")
    for preview in (folder / "valid_preds").glob("epoch_*.jpg"):
        preview.unlink(missing_ok=True)


def _write(folder: Path, entries: list) -> None:
    write_atomically(folder / "run.json", json.dumps(entries, indent=2).encode())


def _entries(folder: Path) -> list:
    try:
        entries = json.loads((folder / "run.json").read_bytes())
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Of this repository, with "+" where files differ from it; None without git."""
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", THIS_REPO, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
