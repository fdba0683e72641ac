"""Times and rates of sources that state none, or wrong ones."""

import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from helpers.cameras import camera
from helpers.videos import grey_frames, make_video, noise_frames, read, sound_packets

from video.reader import VideoReader
from video.writer import VideoWriter


def rewritten(source, target):
    with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
        frames = list(reader)
        for frame in frames:
            writer.write(frame.image, frame.time, frame.duration)
    return reader, frames


def jittering(path, codec, count=60, mean=33):
    """A recording whose header tells no rate, with uneven times."""
    pytest.importorskip("av", minversion="18.1", reason="earlier ones write a rate of 24")
    rng = np.random.default_rng(1)
    ticks = np.cumsum(rng.integers(7, 2 * mean - 7, count)).tolist()
    images = grey_frames(10) * (count // 10)
    make_video(path, images, codec, ticks=ticks, options={"live": "1"}, fps=Fraction(0))
    return ticks


@pytest.mark.parametrize("suffix", ["h264", "hevc"])
@pytest.mark.parametrize("rate", [10, 60])
def test_frames_of_a_raw_stream_are_counted_by_the_rate_of_its_header(tmp_path, suffix, rate):
    codec = {"h264": "libx264", "hevc": "libx265"}[suffix]
    source = make_video(tmp_path / f"in.{suffix}", grey_frames(12), codec, fps=Fraction(rate))
    assert read(source)[1] == [Fraction(i, rate) for i in range(12)]
    assert read(source, start=5 / rate)[1] == [Fraction(i, rate) for i in range(7)]


def test_a_raw_stream_that_was_cut_out_of_a_longer_one_is_counted_from_0(tmp_path):
    source = make_video(tmp_path / "in.m4v", noise_frames(30), "mpeg4", gop=5)
    data = source.read_bytes()
    source.write_bytes(data[len(data) // 2 :])
    times = read(source)[1]
    assert len(times) > 10
    assert times == [Fraction(i, 10) for i in range(len(times))]


def test_a_stream_without_times_and_rate_is_told(tmp_path, capsys):
    source = make_video(tmp_path / "in.mjpeg", grey_frames(4), "mjpeg", pix_fmt="yuvj420p")
    assert read(source)[1] == [Fraction(i, 25) for i in range(4)]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "in.mjpeg has neither times nor a rate: 25 frames per second are assumed" in said


@pytest.mark.parametrize(("name", "codec"), [("in.webm", "libvpx"), ("in.mkv", "mpeg4"),
                                             ("in.flv", "flv"), ("in.ts", "libx264")])  # fmt: skip
def test_rates_are_those_of_the_frames(tmp_path, name, codec, capsys):
    ticks = jittering(tmp_path / name, codec)
    reader, frames = rewritten(tmp_path / name, tmp_path / "out.mp4")
    mean = 59_000 / (ticks[-1] - ticks[0])
    assert float(reader.fps) == pytest.approx(mean, rel=0.1)
    assert float(frames[-1].duration) == pytest.approx(1 / mean, rel=0.3)
    assert capsys.readouterr().err == ""
    assert [float(frame.time - frames[0].time) for frame in frames] == pytest.approx(
        [(tick - ticks[0]) / 1000 for tick in ticks], abs=0.002
    )


@pytest.mark.parametrize("start", [0.5, 1.5, 4])
def test_a_part_of_a_recording_without_a_rate(tmp_path, start):
    ticks = jittering(tmp_path / "in.webm", "libvpx", count=150)
    times = read(tmp_path / "in.webm", start=start, duration=0.3)[1]
    with VideoReader(tmp_path / "in.webm") as whole:
        origin = whole.start_time
    shown = [tick / 1000 for tick in ticks if start <= tick / 1000 - float(origin) < start + 0.3]
    assert [float(time) for time in times] == pytest.approx([t - shown[0] for t in shown], abs=0.01)


def test_key_frames_come_every_two_seconds_whatever_the_file_states(tmp_path):
    jittering(tmp_path / "in.webm", "libvpx", count=180)
    rewritten(tmp_path / "in.webm", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as film:
        keys = [float(p.pts * p.time_base) for p in film.demux(video=0) if p.is_keyframe]
    assert len(keys) >= 3
    assert max(b - a for a, b in pairwise(keys)) < 2.5


def test_a_high_rate_that_is_true_stays(tmp_path):
    source = make_video(tmp_path / "in.mp4", grey_frames(20), fps=Fraction(240))
    with VideoReader(source) as reader:
        assert reader.fps == 240


def test_a_camera_without_times_gets_those_of_the_clock(tmp_path):
    started = time.monotonic()
    with camera(fps=10, count=14) as host:
        reader, frames = rewritten(f"http://{host}/video", tmp_path / "out.mp4")
    assert reader.is_live
    assert len(frames) == 14
    assert all(a.time < b.time for a, b in pairwise(frames))
    assert 0.6 < frames[-1].time < time.monotonic() - started  # a busy machine is late
    assert 1 < reader.fps < 60


@pytest.mark.parametrize("late", [0, 60_000])  # milliseconds by which the first clock is ahead
def test_joined_recordings_follow_each_other_with_their_sound(tmp_path, late):
    parts = [
        make_video(
            tmp_path / f"{i}.ts", noise_frames(20), sound=None if late else "mp3", gop=5,
            ticks=[shift + 100 * k for k in range(20)],
        )
        for i, shift in enumerate((late, 0))
    ]  # fmt: skip
    (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    _, frames = rewritten(tmp_path / "in.ts", tmp_path / "out.mp4")
    steps = [float(b.time - a.time) for a, b in pairwise(frames)]
    assert len(frames) >= 38
    assert steps == pytest.approx([0.1] * len(steps), abs=0.15)
    if not late:
        whole = sum(len(sound_packets(part)) for part in parts)
        assert len(sound_packets(tmp_path / "out.mp4")) >= whole - 4
