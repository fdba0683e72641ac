"""Videos drawn by code, and what is in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from video.reader import VideoReader

FPS = Fraction(10)
WIDTH, HEIGHT = 64, 48


def grey_level(i: int) -> int:
    """The brightness that tells frame i from its neighbours."""
    return 20 + 7 * i


def grey_frames(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    return [np.full((height, width, 3), grey_level(i), np.uint8) for i in range(count)]


def noise_frames(count: int) -> list[np.ndarray]:
    """Frames that compress badly, so that each has some bytes of its own."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8))


def make_video(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    fps: Fraction = FPS,
    pix_fmt: str = "yuv420p",
    ticks: list[int] | None = None,  # frame times in units of 1/1000 s, instead of fps
    sound: str | None = None,  # an audio codec
    options: dict | None = None,
    gop: int = 250,  # frames between key frames
) -> Path:
    with av.open(str(path), "w", container_options=options or {}) as output:
        stream = output.add_stream(codec, rate=fps, options={"crf": "10", "deadline": "realtime"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.gop_size = pix_fmt, 2_000_000, gop
        if not fps:  # a header that states none
            stream.codec_context.framerate = Fraction(0)
        time_base = Fraction(1, 1000) if ticks else 1 / fps
        stream.codec_context.time_base = time_base
        audio = output.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = ticks[i] if ticks else i, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio:
            for frame in hum(seconds=len(frames) / fps):
                output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return path


def hum(seconds: Fraction, rate: int = 48000):
    """Yield about seconds of a 440 Hz tone, 1024 samples at a time."""
    for first in range(0, int(seconds * rate), 1024):
        wave = 8000 * np.sin(2 * np.pi * 440 / rate * np.arange(first, first + 1024))
        samples = np.repeat(wave.astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        yield frame


def read(path: Path, **clip) -> tuple[list[np.ndarray], list[Fraction]]:
    with VideoReader(path, **clip) as reader:
        frames = list(reader)
    return [f.image for f in frames], [f.time for f in frames]


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """In the with-block a file that grows beyond `size` bytes fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
