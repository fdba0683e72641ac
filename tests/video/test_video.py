"""Videos of every kind, drawn here, through VideoReader and VideoWriter and back."""

import itertools
import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import av
import cv2
import numpy as np
import pytest
from helpers.basics import shared_data
from helpers.videos import (
    FPS,
    HEIGHT,
    WIDTH,
    files_of_at_most,
    grey_frames,
    grey_level,
    hum,
    make_video,
    noise_frames,
    read,
    sound_packets,
)

from utils import InputError
from video import codecs
from video import reader as reader_module
from video import writer as writer_module
from video.reader import VideoReader
from video.times import FrameTimes
from video.writer import VideoWriter

RED, GREY = [200, 30, 30], [128, 128, 128]


def transcode(source: Path, target: Path, **clip) -> list[Fraction]:
    """Read source, write target; the times of the frames read."""
    times = []
    with VideoReader(source, **clip) as reader, VideoWriter(target, reader) as writer:
        for frame in reader:
            writer.write(frame.image, frame.time, frame.duration)
            times.append(frame.time)
    return times


def write(path: Path, images: Sequence[np.ndarray], **options) -> Path:
    with VideoWriter(path, fps=FPS, **options) as writer:
        for image in images:
            writer.write(image)
    return path


def levels(images: list[np.ndarray]) -> list[float]:
    return [float(image.mean()) for image in images]


def sound_seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(f.samples / f.sample_rate for f in container.decode(audio=0))


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [
        ("clip.mp4", "libx264", 0),
        ("clip.mov", "libx264", 0),
        ("clip.mkv", "libx264", 0.00051),  # Matroska counts milliseconds
        ("clip.webm", "libvpx", 0.00051),
        ("clip.avi", "mpeg4", 0),
        ("b-frames.avi", "libx264", 0),  # AVI has no presentation times
    ],
)
def test_every_frame_at_its_time(tmp_path, name, codec, tolerance):
    source = make_video(tmp_path / name, grey_frames(20), codec, fps=Fraction(30000, 1001))
    times = transcode(source, tmp_path / "out.mp4")
    assert [float(t) for t in times] == pytest.approx(
        [i * 1001 / 30000 for i in range(20)], abs=tolerance
    )
    images, times_out = read(tmp_path / "out.mp4")
    assert times_out == times
    assert levels(images) == pytest.approx([grey_level(i) for i in range(20)], abs=2)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        if not tolerance:
            assert (stream.average_rate, stream.frames) == (Fraction(30000, 1001), 20)
            assert stream.duration * stream.time_base == 20 * Fraction(1001, 30000)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # browsers play it while it comes


def test_the_last_frame_lasts_as_long_as_it_should(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, fps=FPS) as writer:
        for image in grey_frames(5):
            writer.write(image)
        writer.write(grey_frames(6)[5], duration=Fraction(3))
    with av.open(str(path)) as container:
        assert float(container.duration) == 3_500_000  # microseconds
    with VideoReader(path) as reader:
        assert [f.duration for f in reader][-1] == 3


def test_a_late_first_frame_stays_late(tmp_path):
    source = make_video(tmp_path / "in.ts", grey_frames(10), sound="aac")  # sound leads here
    times = transcode(source, tmp_path / "out.mp4")
    with av.open(str(source)) as container:
        starts = [s.start_time * s.time_base for s in container.streams]
    assert 0 < times[0] == starts[0] - starts[1]
    assert read(tmp_path / "out.mp4")[1] == times


@pytest.mark.parametrize(
    ("matrix", "size", "corner"),
    [
        ((0, 1, -1, 0), (HEIGHT, WIDTH), (0, -1)),  # a quarter turn clockwise
        ((-1, 0, 0, -1), (WIDTH, HEIGHT), (-1, -1)),
        ((0, -1, 1, 0), (HEIGHT, WIDTH), (-1, 0)),
        ((-1, 0, 0, 1), (WIDTH, HEIGHT), (0, -1)),  # a mirror
    ],
)
def test_rotation_tag(tmp_path, matrix, size, corner):
    image = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    image[:16, :16] = RED  # top left as it is stored
    source = make_video(tmp_path / "in.mp4", [image] * 5)
    data = bytearray(source.read_bytes())
    a, b, c, d = (v << 16 for v in matrix)
    struct.pack_into(">5i", data, data.index(b"tkhd") + 44, a, b, 0, c, d)
    source.write_bytes(data)

    transcode(source, tmp_path / "out.mp4")
    for path in (source, tmp_path / "out.mp4"):
        with VideoReader(path) as reader:
            assert (reader.width, reader.height) == size
            for frame in reader:
                assert frame.image.flags.c_contiguous
                assert frame.image.shape == (reader.height, reader.width, 3)
                assert frame.image[corner].tolist() == pytest.approx(RED, abs=8)
                assert frame.image[24, 24].tolist() == pytest.approx(GREY, abs=8)
    with av.open(str(tmp_path / "out.mp4")) as container:  # upright without a tag
        assert next(container.decode(video=0)).rotation == 0


def test_odd_size_gets_its_last_row_and_column_again(tmp_path):
    frames = grey_frames(5, width=33, height=27)
    for image in frames:
        image[:, 20:] = RED
    source = make_video(tmp_path / "in.mkv", frames, "ffv1", pix_fmt="bgr0")
    transcode(source, tmp_path / "out.mp4")
    images, _ = read(source)
    np.testing.assert_array_equal(images[3], frames[3])
    images, _ = read(tmp_path / "out.mp4")
    assert images[3].shape == (28, 34, 3)
    assert images[3][27, 5].tolist() == pytest.approx(frames[3][26, 5].tolist(), abs=4)
    assert images[3][5, 33].tolist() == pytest.approx(RED, abs=8)


@pytest.mark.parametrize("height", [HEIGHT, 720])
def test_colours_come_out_as_they_went_in(tmp_path, height):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (230, 140, 20)]
    image = np.repeat(np.array(colours, np.uint8)[None], 16, axis=1).repeat(height, axis=0)
    path = write(tmp_path / "out.mp4", [image] * 3)
    with av.open(str(path)) as container:  # by the file's tags, not by our reader's guess
        frame, context = next(container.decode(video=0)), container.streams.video[0].codec_context
        assert frame.colorspace == context.color_primaries == context.color_trc
        assert (frame.colorspace, frame.color_range) == (1 if height == 720 else 6, 1)
    yuv = [np.array(plane).reshape(-1, plane.line_size) for plane in frame.planes]
    for i, colour in enumerate(colours):
        y, u, v = yuv[0][24, 16 * i + 8], yuv[1][12, 8 * i + 4], yuv[2][12, 8 * i + 4]
        assert rgb_by_hand(int(y), int(u), int(v), hd=height == 720) == pytest.approx(colour, abs=4)
    seen = read(path)[0][0][24, 8::16].astype(int)
    assert np.abs(seen - colours).max() <= 4


def rgb_by_hand(y: int, u: int, v: int, hd: bool) -> list[float]:
    """The definition of limited-range YCbCr after BT.709 (hd) or BT.601."""
    kr, kb = (0.2126, 0.0722) if hd else (0.299, 0.114)
    luma = (y - 16) / 219
    red, blue = luma + 2 * (1 - kr) * (v - 128) / 224, luma + 2 * (1 - kb) * (u - 128) / 224
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return [255 * red, 255 * green, 255 * blue]


def test_untagged_hd_is_read_as_bt709(tmp_path):
    image = np.full((720, WIDTH, 3), RED, np.uint8)
    yuv = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
    )
    with av.open(str(tmp_path / "in.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=10, width=WIDTH, height=720)
        yuv.colorspace, yuv.pts, yuv.time_base = 2, 0, Fraction(1, 10)
        output.mux(stream.encode(yuv))
        output.mux(stream.encode(None))
    assert read(tmp_path / "in.mkv")[0][0][360, 32].tolist() == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("codec", ["aac", "mp3", "ac3"])
def test_sound_is_copied_packet_by_packet(tmp_path, codec):
    source = make_video(tmp_path / "in.mp4", grey_frames(20), sound=codec)
    transcode(source, tmp_path / "out.mp4")
    assert len(sound_packets(source)) > 50
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(source)
    assert sound_seconds(tmp_path / "out.mp4") == sound_seconds(source)
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        assert a.streams.audio[0].start_time == b.streams.audio[0].start_time
        assert a.duration == pytest.approx(b.duration, abs=25_000)  # microseconds: one packet


def test_sound_that_mp4_does_not_hold_becomes_aac(tmp_path):
    source = make_video(tmp_path / "in.avi", grey_frames(20), "mpeg4", sound="pcm_s16le")
    transcode(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert np.abs(wave).max() == pytest.approx(8000 / 32768, rel=0.1)
    assert sound_seconds(tmp_path / "out.mp4") == pytest.approx(sound_seconds(source), abs=0.03)


def test_sound_that_fits_nowhere_is_left_out_aloud(tmp_path, capsys, monkeypatch):
    class Refused(writer_module.SoundTrack):
        def __init__(self, reader, output):
            super().__init__(reader, output)
            output.add_stream("aac", rate=12345)  # no such rate: the header cannot be written

    source = make_video(tmp_path / "in.mp4", grey_frames(5), sound="aac")
    monkeypatch.setattr(writer_module, "SoundTrack", Refused)
    transcode(source, tmp_path / "out.mp4")
    assert f"{source}: its sound is left out" in capsys.readouterr().err
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert (len(list(reader)), reader.has_audio) == (5, False)


def test_damaged_sound_does_not_stop_the_pictures(tmp_path, monkeypatch):
    class Damaged(writer_module.SoundTrack):
        def _copy(self):
            for i, packet in enumerate(super()._copy()):
                if i % 5 == 4:
                    packet.pts = packet.dts = 0  # back in time: the muxer refuses it
                yield packet

    source = make_video(tmp_path / "in.mp4", grey_frames(20), sound="aac")
    monkeypatch.setattr(writer_module, "SoundTrack", Damaged)
    transcode(source, tmp_path / "out.mp4")
    assert len(read(tmp_path / "out.mp4")[0]) == 20
    good = [p for i, p in enumerate(sound_packets(source)) if i % 5 != 4]
    assert sound_packets(tmp_path / "out.mp4") == good


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.avi"])
def test_start_and_duration(tmp_path, name):
    source = make_video(
        tmp_path / name, grey_frames(30), sound="aac", options={"movflags": "+faststart"}
    )
    with VideoReader(source, start=0.8, duration=1) as reader:  # 0.8 as a float is above 4/5
        assert reader.num_frames == pytest.approx(10, abs=1)
    times = transcode(source, tmp_path / "out.mp4", start=0.8, duration=1)
    images, times_out = read(tmp_path / "out.mp4")
    assert times_out == times == [Fraction(i, 10) for i in range(10)]
    assert levels(images) == pytest.approx([grey_level(i) for i in range(8, 18)], abs=2)
    whole, part = sound_packets(source), sound_packets(tmp_path / "out.mp4")
    assert sound_seconds(tmp_path / "out.mp4") == pytest.approx(1, abs=0.05)
    first = whole.index(part[0])
    assert first == pytest.approx(0.8 * 48000 / 1024, abs=2)
    assert whole[first : first + len(part)] == part


def test_live_time_begins_with_the_first_frame(tmp_path, monkeypatch):
    ticks = [10_000_000 + 100 * i for i in range(10)]
    source = make_video(tmp_path / "in.mp4", grey_frames(10), ticks=ticks, sound="aac")
    assert read(source)[1][0] > 9000  # sound from 0 on
    monkeypatch.setattr(reader_module, "is_live", lambda *_: True)
    assert read(source, duration=0.5)[1] == [Fraction(i, 10) for i in range(5)]
    with VideoReader(source) as reader:
        assert not reader.has_audio


def test_pixels_that_are_not_square_stay_so(tmp_path):
    source = write(tmp_path / "in.mp4", grey_frames(1))
    assert b"pasp" not in source.read_bytes()
    with VideoReader(source) as reader:
        reader.pixel_aspect = Fraction(16, 15)
        with VideoWriter(tmp_path / "out.mp4", reader) as writer:
            writer.write(grey_frames(1)[0])
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.pixel_aspect == Fraction(16, 15)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.avi"])
def test_truncated_file_gives_what_it_has_and_says_so(tmp_path, capsys, name):
    options = {"movflags": "+faststart"}
    source = make_video(tmp_path / name, noise_frames(30), "mpeg4", options=options)
    read(source)
    assert capsys.readouterr().err == ""
    data = source.read_bytes()
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    half = len(data) // 2
    source.write_bytes(data[:half])
    times = transcode(source, tmp_path / "out.mp4")
    assert len(times) == sum(p.pos + p.size <= half for p in packets)
    error = capsys.readouterr().err
    assert f"{source} is cut short or damaged" in error
    assert error.count("\n") == 1
    assert len(read(tmp_path / "out.mp4")[0]) == len(times)


@pytest.mark.parametrize("name", ["in.mkv", "in.webm", "in.flv"])
def test_bytes_between_packets_that_are_passed_over_are_told(tmp_path, capsys, name):
    codec, sound = ("libvpx-vp9", "libopus") if name == "in.webm" else ("libx264", "aac")
    layout = "yuva420p" if name == "in.webm" else "yuv420p"  # alpha lies beside the packets' data
    source = make_video(
        tmp_path / name, noise_frames(40), codec, pix_fmt=layout, gop=5, sound=sound
    )
    assert len(read(source)[0]) == 40
    assert capsys.readouterr().err == ""
    data = bytearray(source.read_bytes())
    start, end = len(data) * 2 // 10, len(data) * 4 // 10
    data[start:end] = bytes(end - start)
    source.write_bytes(data)
    assert 20 < len(read(source)[0]) < 40
    assert "damaged bytes passed over" in capsys.readouterr().err


def test_damaged_packets_are_skipped(tmp_path, capsys):
    source = make_video(tmp_path / "in.mov", noise_frames(10), "png", pix_fmt="rgb24")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    at = data.index(packets[4])
    data[at : at + 64] = bytes(64)
    source.write_bytes(data)
    assert read(source)[1] == [Fraction(i, 10) for i in range(10) if i != 4]
    assert "1 damaged packets" in capsys.readouterr().err


def only_sound(path: Path, codec: str = "aac", **container) -> None:
    with av.open(str(path), "w", **({"format": "mp4"} | container)) as output:
        stream = output.add_stream(codec, rate=48000, layout="stereo")
        for frame in hum(Fraction(1, 2)):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def sound_with_a_cover(path: Path) -> None:
    only_sound(path, "mp3", format="mp3", container_options={"write_xing": "0"})
    _, png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    cover = b"\0image/png\0\3\0" + png.tobytes()  # encoding, type, front cover, no description
    frame = b"APIC" + struct.pack(">IH", len(cover), 0) + cover
    size = bytes(len(frame) >> 7 * i & 127 for i in (3, 2, 1, 0))
    path.write_bytes(b"ID3\3\0\0" + size + frame + path.read_bytes())


def no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        output.add_stream("mpeg4", rate=10, width=WIDTH, height=HEIGHT)
        output.start_encoding()


def no_header(path: Path) -> None:
    make_video(path, noise_frames(10))
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "is a folder"),
        (lambda path: path.write_text("not a video " * 100), "cannot be opened as a video"),
        (Path.touch, "cannot be opened as a video"),
        (only_sound, "has no video stream"),
        (sound_with_a_cover, "has no video stream"),
        (no_frames, "no (video stream|frame can be decoded)"),
        (no_header, "cannot be opened as a video"),
    ],
)
def test_no_video(tmp_path, make, message):
    path = tmp_path / "in.mp4"
    make(path)
    with pytest.raises(InputError, match=message) as error:
        VideoReader(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_pictures_and_webcams_that_are_not_there(tmp_path):
    picture = make_video(tmp_path / "in.png", noise_frames(1), "png", pix_fmt="rgb24")
    with pytest.raises(InputError, match="is not a video"):
        VideoReader(picture)
    with pytest.raises(InputError, match="97"):
        VideoReader(97)
    with pytest.raises(InputError, match=r"in\.mp4: no frame .* from 9 s"):
        VideoReader(make_video(tmp_path / "in.mp4", grey_frames(5)), start=9)


def test_places_that_cannot_be_written(tmp_path):
    source = make_video(tmp_path / "in.mp4", grey_frames(3))
    (tmp_path / "link.mp4").symlink_to(source)
    with VideoReader(source) as reader:
        for name in ("in.mp4", "link.mp4"):
            with pytest.raises(InputError, match="is the input itself"):
                VideoWriter(tmp_path / name, reader)
    writer = VideoWriter(tmp_path / "rate.mp4", fps=10, codec="mpeg1video")
    with pytest.raises(InputError, match="does not encode 64 x 48 pixels at 10 frames per second"):
        writer.write(grey_frames(1)[0])
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    for name, message in [
        ("file/out.mp4", "cannot be written"),
        ("folder.mp4", "is a folder"),
        ("out.avi", "ends in .mp4"),
    ]:
        with pytest.raises(InputError, match=message):
            VideoWriter(tmp_path / name, fps=FPS)


@pytest.mark.parametrize(("room", "kept"), [(0.01, 0), (0.5, 4), (0.97, 8)])
def test_a_full_disk_keeps_the_whole_groups(tmp_path, tmp_path_factory, monkeypatch, room, kept):
    monkeypatch.setattr(writer_module, "SECONDS_PER_GROUP", 0.2)  # two frames
    whole = write(tmp_path_factory.mktemp("whole") / "out.mp4", noise_frames(10), crf=10)
    with (
        files_of_at_most(int(room * whole.stat().st_size)),
        pytest.raises(InputError, match=r"out\.mp4 cannot be written") as error,
    ):
        write(tmp_path / "out.mp4", noise_frames(10), crf=10)
    assert ("so far is kept there" in str(error.value)) == (kept > 0)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] * (kept > 0)
    if kept:
        times = read(tmp_path / "out.mp4")[1]
        assert len(times) in (kept, kept + 1)
        assert times == [Fraction(i, 10) for i in range(len(times))]


def test_without_room_for_a_copy_the_index_stays_at_the_end(tmp_path, monkeypatch):
    full_disk = OSError(28, "No space left on device")
    monkeypatch.setattr(writer_module, "move_index_to_front", Mock(side_effect=full_disk))
    write(tmp_path / "out.mp4", noise_frames(10))
    assert len(read(tmp_path / "out.mp4")[0]) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_killed_writer_leaves_a_file_that_plays(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "SECONDS_PER_GROUP", 1)
    with VideoWriter(tmp_path / "out.mp4", fps=FPS) as writer:
        for image in noise_frames(200):
            writer.write(image)
        (part,) = tmp_path.iterdir()
        killed = part.read_bytes()  # what the disk has at this moment
    (tmp_path / "left.mp4").write_bytes(killed)
    times = read(tmp_path / "left.mp4")[1]
    assert len(times) >= 100
    assert times == [Fraction(i, 10) for i in range(len(times))]


def test_without_x264_the_next_best_and_a_line(tmp_path, capsys, monkeypatch):
    problem = codecs.encoder_problem
    missing = lambda name: "missing" if name == "libx264" else problem(name)  # noqa: E731
    monkeypatch.setattr(codecs, "encoder_problem", missing)
    source = make_video(tmp_path / "in.ts", grey_frames(10))  # 90 000 ticks per second
    times = transcode(source, tmp_path / "out.mp4")
    assert "libx264 is missing" in capsys.readouterr().err
    images, times_out = read(tmp_path / "out.mp4")
    assert [float(t) for t in times_out] == pytest.approx([float(t) for t in times], abs=1e-4)
    assert levels(images) == pytest.approx([grey_level(i) for i in range(10)], abs=3)


@pytest.mark.parametrize("codec", [
    "bogus", "aac", "libvpx", "rawvideo", "wmv2", "flv", "h263p", "utvideo", "gif",
])  # fmt: skip
def test_codecs_that_cannot_write_an_mp4(tmp_path, codec):
    with pytest.raises(InputError, match=f"codec {codec}: .*; use libx264"):
        VideoWriter(tmp_path / "out.mp4", fps=FPS, codec=codec)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_encoders_print_no_banner(tmp_path, capfd, codec):
    if codecs.encoder_problem(codec):
        pytest.skip(f"this FFmpeg has no {codec}")
    write(tmp_path / "out.mp4", grey_frames(3, 128, 128), codec=codec)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("first", "late"), [(3, 0), (3, 200), (20, 0), (10, -900)])
def test_frames_before_the_first_time_are_counted_back(tmp_path, monkeypatch, first, late):
    """first: frames without a time; late: milliseconds by which all others come."""
    source = make_video(tmp_path / "in.mkv", grey_frames(20))
    ticks_of, numbers = FrameTimes._ticks, itertools.count()
    monkeypatch.setattr(
        FrameTimes, "_ticks",
        lambda self, frame: None if next(numbers) < first else ticks_of(self, frame) + late,
    )  # fmt: skip
    times = read(source)[1]
    if late >= 0:
        assert times == [Fraction(i, 10) + Fraction(late, 1000) for i in range(20)]
    assert times[0] >= 0
    assert all(a < b for a, b in itertools.pairwise(times))


def test_pictures_lost_with_their_key_frame_are_told(tmp_path, capsys):
    source = make_video(tmp_path / "in.ts", noise_frames(60), gop=20)
    with av.open(str(source)) as container:
        positions = [p.pos for p in container.demux(video=0) if p.size]
    source.write_bytes(source.read_bytes()[positions[1] :])  # from the second picture on
    count = len(read(source)[0])
    assert count < 59
    said = capsys.readouterr().err
    assert f"the first {59 - count} pictures are lost, as their key frame is missing" in said
    read(make_video(tmp_path / "whole.ts", noise_frames(60), gop=20))
    assert capsys.readouterr().err == ""


def test_names_that_are_not_utf8(tmp_path):
    source = tmp_path / (os.fsdecode(b"caf\xe9") + ".mp4")
    make_video(tmp_path / "in.mp4", grey_frames(3)).rename(source)
    target = tmp_path / (os.fsdecode(b"\xe9") + "_out.mp4")
    transcode(source, target)
    target.rename(tmp_path / "out.mp4")
    assert len(read(tmp_path / "out.mp4")[0]) == 3
    assert writer_module.origin_of(tmp_path / "out.mp4").startswith("made of caf\\udce9.mp4, ")


def test_vtest_avi():
    with VideoReader(shared_data("videos/vtest.avi")) as reader:
        assert (reader.width, reader.height, reader.fps) == (480, 360, 10)
        assert [f.time for f in reader] == [Fraction(i, 10) for i in range(795)]
