"""infer_video.py as a user runs it, on drawn videos of every kind."""

import csv
import itertools
import os
import signal
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.basics import leftover_of
from helpers.stubs import fails
from helpers.videos import grey_frames, make_video, noise_frames, read, sound_packets

import infer_video
from common import signals
from data.numbers import ValueRange
from results import video_files
from results.overlays import class_colours, overlay
from utils import InputError

RESULTS = Path("outputs/inference_results_video")


def run(source, *more):
    infer_video.main(["--input", str(source), *map(str, more)])


def test_a_model_of_deep_pictures_says_how_films_are_read(stub, in_tmp, capsys):
    source = make_video(in_tmp / "clip.mp4", grey_frames(2))
    run(source)
    assert "range" not in capsys.readouterr().err
    stub.value_range = ValueRange(0, 4095)
    run(source, "--out-dir", "deep")
    assert "in which 0 to 4095 become black to white" in capsys.readouterr().err


def kept() -> set[str]:
    """Names of the results, without those of the page."""
    return {path.name for path in RESULTS.iterdir()} - {"index.html", "page"}


def test_results_are_those_of_frame_by_frame(stub, in_tmp):
    ticks = [0, 100, 150, 400, 420, 900, 1000, 1500, 1510, 2000]
    source = make_video(in_tmp / "in.mp4", grey_frames(10), ticks=ticks)
    run(source, "--batch", "4", "--save", "mask,csv", "--crf", "0")
    shown, times_shown = read(RESULTS / "in_mask.mp4")
    rows = list(csv.DictReader((RESULTS / "in.csv").open()))
    frames, times = read(source)
    assert times_shown == times == [Fraction(tick, 1000) for tick in ticks]
    for i, image in enumerate(frames):
        labels = stub.labels(image)
        expected = class_colours(labels, stub.classes)
        assert np.abs(shown[i].astype(int) - expected)[:, ::8].mean() < 12  # 4:2:0 at the border
        assert int(rows[i]["frame"]) == i
        assert float(rows[i]["time_s"]) == pytest.approx(float(times[i]))
        assert float(rows[i]["bright"]) == pytest.approx((labels == 1).mean(), abs=1e-6)
    assert len(rows) == 10


def test_several_outputs_of_one_pass(stub, in_tmp, capsys):
    source = make_video(in_tmp / "in.mp4", grey_frames(5), sound="aac")
    run(source, "--save", "overlay,mask,side-by-side,csv", "--alpha", "0.3", "--crf", "5")
    assert kept() == {"in.mp4", "in_mask.mp4", "in_side_by_side.mp4", "in.csv"}
    assert sound_packets(RESULTS / "in.mp4") == sound_packets(source)
    both, _ = read(RESULTS / "in_side_by_side.mp4")
    frames, _ = read(source)
    drawn = overlay(frames[4], stub.labels(frames[4]), stub.classes, 0.3)
    assert np.abs(both[4][:, :64].astype(int) - frames[4]).mean() < 3
    assert np.abs(both[4][:, 64:].astype(int) - drawn).mean() < 6
    assert stub.num_images == 5
    assert capsys.readouterr().out.splitlines()[-1].startswith("5 frames in ")


@pytest.mark.parametrize(("every", "batch"), [(2, 4), (3, 1), (3, 8), (20, 4)])
def test_every_nth_frame_and_its_map_until_the_next(stub, in_tmp, every, batch):
    source = make_video(in_tmp / "in.mp4", grey_frames(10))
    run(source, "--every", every, "--batch", batch, "--save", "csv")
    shares = [float(r["bright"]) for r in csv.DictReader((RESULTS / "in.csv").open())]
    frames, _ = read(source)
    held = [(stub.labels(frames[i // every * every]) == 1).mean() for i in range(10)]
    assert shares == pytest.approx(held, abs=1e-6)
    assert stub.num_images == -(-10 // every)
    assert stub.largest_batch <= batch


def test_smoothing_lessens_the_flicker(stub, in_tmp, capsys):
    levels = [100, 108] * 10
    frames = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    source = make_video(in_tmp / "in.mp4", frames)
    changes = []
    for strength in ("0", "0.8"):
        run(source, "--smooth", strength, "--save", "csv")
        line = next(x for x in capsys.readouterr().out.splitlines() if "change class" in x)
        changes.append(float(line.split()[1].rstrip("%")))
    assert changes[0] > 1
    assert changes[1] < changes[0] / 2


def test_start_and_duration(stub, in_tmp):
    source = make_video(in_tmp / "in.mp4", grey_frames(20))
    run(source, "--start", "0:00.45", "--duration", "0.8")
    _, times = read(RESULTS / "in.mp4")
    assert times == [Fraction(i, 10) for i in range(8)]
    assert stub.num_images == 8


def test_codec_and_quality_reach_the_file(stub, in_tmp):
    source = make_video(in_tmp / "in.mp4", noise_frames(6))
    sizes = []
    for crf in (5, 45):
        run(source, "--crf", crf)
        sizes.append((RESULTS / "in.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]
    run(source, "--codec", "mpeg4")
    with av.open(str(RESULTS / "in.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_an_address_and_a_webcam_give_a_file_name():
    assert video_files.result_stem("rtsp://u:p@host:8554/a b?x=1") == "host_8554_a_b"
    assert video_files.result_stem("0", is_live=True).startswith("webcam_0_20")


@pytest.mark.parametrize(("first_kind", "kinds"), [
    ("overlay", ("overlay", "csv")), ("csv", ("csv", "mask")),
])  # fmt: skip
def test_two_videos_of_one_name_do_not_replace_each_other(stub, in_tmp, capsys, first_kind, kinds):
    first = make_video(in_tmp / "in.mp4", grey_frames(3))
    second = make_video(in_tmp / "in.mov", noise_frames(3), "mpeg4")
    run(first, "--save", first_kind)
    run(first, "--save", first_kind)  # again: its own result
    before = {path: path.read_bytes() for path in RESULTS.glob("in[._]*")}
    for kind in kinds:
        message = fails(capsys, infer_video.main, "--input", second, "--save", kind)
        assert "is there already, made of in.mp4, " in message
        assert "this is in.mov, " in message
    assert {path: path.read_bytes() for path in RESULTS.glob("in[._]*")} == before
    run(second, "--out-dir", "other")


@pytest.mark.parametrize(("stage", "call"), [("model", 1), ("drawing", 2), ("encode", 9)])
def test_an_error_in_any_stage_leaves_the_older_files(stub, in_tmp, monkeypatch, stage, call):
    source = make_video(in_tmp / "in.mp4", grey_frames(30))
    run(source, "--save", "overlay", "--duration", "1")
    older = (RESULTS / "in.mp4").read_bytes()
    owner, name = {
        "model": (stub, "predict"),
        "drawing": (infer_video, "draw_frame"),
        "encode": (video_files.VideoResults, "write"),
    }[stage]
    function, calls = getattr(owner, name), itertools.count(1)

    def fail_once(*args, **kwargs):
        if next(calls) == call:
            raise ZeroDivisionError
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, fail_once)
    with pytest.raises(ZeroDivisionError):
        run(source, "--save", "overlay,mask,csv")
    assert kept() == {"in.mp4"}
    assert (RESULTS / "in.mp4").read_bytes() == older


@pytest.mark.parametrize(("number", "count"), [
    (signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGHUP, 2),
])  # fmt: skip
def test_one_or_two_signals_keep_the_film(stub, in_tmp, monkeypatch, number, count):
    ends, predict = [], stub.predict
    monkeypatch.setattr(signals, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(signals.os, "_exit", ends.append)

    def predict_and_signal(images, keep):
        if stub.num_images == 32:
            for _ in range(count):
                os.kill(os.getpid(), number)
                time.sleep(0.05)
        return predict(images, keep)

    monkeypatch.setattr(stub, "predict", predict_and_signal)
    source = make_video(in_tmp / "in.mp4", grey_frames(30) * 2, sound="aac")
    with pytest.raises(SystemExit) as stop:
        run(source, "--save", "overlay,csv")
    assert (stop.value.code, ends) == (128 + number, [])
    times = read(RESULTS / "in.mp4")[1]
    assert 0 < len(times) < 60
    rows = (RESULTS / "in.csv").read_text().splitlines()
    assert len(rows) == len(times) + 1
    assert kept() == {"in.mp4", "in.csv"}
    assert "Interrupted" in (RESULTS / "index.html").read_text(encoding="utf-8")


def test_errors_of_the_user_keep_the_film_so_far(stub, in_tmp, capsys, monkeypatch):
    predict = stub.predict

    def fail_later(images, keep):
        if stub.num_images >= 8:
            raise InputError("out of memory")
        return predict(images, keep)

    monkeypatch.setattr(stub, "predict", fail_later)
    source = make_video(in_tmp / "in.mp4", grey_frames(20), sound="aac")
    leftover_of(RESULTS / "in.mp4")
    message = fails(capsys, infer_video.main, "--input", source, "--save", "overlay,csv")
    assert message == "error: out of memory"
    assert kept() == {"in.mp4", "in.csv"}
    times = read(RESULTS / "in.mp4")[1]
    assert times == [Fraction(i, 10) for i in range(8)]
    sound, whole = sound_packets(RESULTS / "in.mp4"), sound_packets(source)
    assert sound == whole[: len(sound)]
    assert len(sound) == pytest.approx(0.8 * 48000 / 1024, abs=3)
