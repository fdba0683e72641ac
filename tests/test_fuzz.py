"""Mutated pictures and videos through the scripts: no traceback, no half file, the good ones done.

FUZZ_PICTURES and FUZZ_VIDEOS set how many.
"""

import io
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.basics import draw_pair
from helpers.videos import grey_frames, make_video, noise_frames
from helpers.waiting import LIMIT
from PIL import Image

import infer_image
import infer_video
from data.images import read_image
from video.reader import VideoReader

NUM_PICTURES = int(os.environ.get("FUZZ_PICTURES", 40))
NUM_VIDEOS = int(os.environ.get("FUZZ_VIDEOS", 20))
FORMATS = {
    "png": {}, "jpg": {}, "gif": {}, "bmp": {}, "tif": {"compression": "tiff_lzw"}, "webp": {},
    "ppm": {},
}  # fmt: skip
VIDEOS = {
    "mp4": {"codec": "libx264", "sound": "aac"}, "mov": {"codec": "mpeg4"},
    "mkv": {"codec": "libx264"}, "avi": {"codec": "mpeg4"}, "webm": {"codec": "libvpx"},
}  # fmt: skip


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """data with some bits turned, cut, with a hole of zeros, bytes doubled, or empty."""
    content = np.frombuffer(data, np.uint8).copy()
    kind = rng.integers(0, 20)
    if kind < 10:
        head = rng.random() < 0.5  # headers are where it hurts
        places = rng.integers(0, min(len(content), 200) if head else len(content), 1 + kind)
        content[places] ^= np.uint8(1) << rng.integers(0, 8, len(places), dtype=np.uint8)
    elif kind < 14:
        content = content[: rng.integers(0, len(content))]
    elif kind < 17:
        start = rng.integers(0, len(content))
        content[start : start + 100] = 0
    elif kind < 19:
        content = np.repeat(content, 2)[: rng.integers(1, 2 * len(content))]
    else:
        content = content[:0]
    return content.tobytes()


def write_pictures(folder: Path, rng: np.random.Generator) -> None:
    """Three good pictures, odd ones, and NUM_PICTURES mutated ones."""
    folder.mkdir()
    for i, size in enumerate([(40, 30), (1, 1), (20_000, 1)]):
        Image.fromarray(draw_pair(i, max(2, size[0]), max(2, size[1]))[0]).resize(size).save(
            folder / f"good{i}.png"
        )
    for i in range(NUM_PICTURES):
        suffix, encoded = rng.choice(list(FORMATS)), io.BytesIO()
        picture = Image.fromarray(draw_pair(i, 40, 30)[0])
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9))
        extra = {"exif": exif} if suffix in ("png", "jpg", "tif", "webp") else {}
        format_ = Image.registered_extensions()[f".{suffix}"]
        picture.save(encoded, format_, **FORMATS[suffix], **extra)
        wrong = rng.random() < 0.1
        name = f"bad{i}.{rng.choice(list(FORMATS)) if wrong else suffix}"
        (folder / name).write_bytes(mutated(encoded.getvalue(), rng))


def test_mutated_pictures(stub, in_tmp):
    write_pictures(in_tmp / "photos", np.random.default_rng(0))
    kinds = "overlay,mask,side-by-side,confidence"
    with pytest.raises(SystemExit) as stop, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        infer_image.main(["--input", "photos", "--save", kinds, "--batch", "4"])
    lines = stop.value.code.splitlines()
    assert all(line.startswith("error: photos/bad") for line in lines), lines
    results = in_tmp / "outputs" / "inference_results_image"
    num_good = NUM_PICTURES + 3 - len(lines)
    assert num_good >= 3
    for i in range(3):
        assert (results / f"good{i}_mask.png").is_file()
    others = {"results.csv", "results.json", "names.json", "contact_sheet.jpg", "index.html"}
    others |= {"page", ".lock"}
    files = [path for path in results.iterdir() if path.name not in others]
    assert len(files) == 4 * num_good
    for path in [*files, results / "contact_sheet.jpg"]:
        read_image(path)  # whole
    assert len((results / "results.csv").read_text().splitlines()) == num_good + 1


@pytest.mark.parametrize("number", range(NUM_VIDEOS))
def test_mutated_videos(stub, in_tmp, capfd, number):
    rng = np.random.default_rng(number)
    suffix = list(VIDEOS)[number % len(VIDEOS)]
    frames = grey_frames(12) if rng.random() < 0.5 else noise_frames(12)
    good = make_video(in_tmp / f"good.{suffix}", frames, **VIDEOS[suffix])
    bad = in_tmp / f"bad.{rng.choice(list(VIDEOS)) if rng.random() < 0.1 else suffix}"
    bad.write_bytes(mutated(good.read_bytes(), rng))
    started = time.monotonic()
    try:
        infer_video.main(["--input", str(bad), "--save", "overlay,csv"])
        error = None
    except SystemExit as stop:
        error = str(stop.code)
    assert error is None or (error.startswith("error: ") and "\n" not in error)
    assert time.monotonic() - started < LIMIT
    assert "Traceback" not in capfd.readouterr().err
    folder = in_tmp / "outputs" / "inference_results_video"
    names = {path.name for path in folder.iterdir()}
    assert names - {"index.html", "page"} == (set() if error else {"bad.mp4", "bad.csv"})
    if error is None:
        with VideoReader(folder / "bad.mp4") as reader:
            assert len(list(reader)) + 1 == len((folder / "bad.csv").read_text().splitlines())
