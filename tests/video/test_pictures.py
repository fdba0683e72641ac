"""Which stream is shown, pictures that change their size, HDR."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers.videos import make_video, read

from video.pictures import HLG, PQ
from video.reader import VideoReader


def round_thing(width: int, height: int) -> np.ndarray:
    image = np.full((height, width, 3), 30, np.uint8)
    return cv2.circle(image, (width // 2, height // 2), 40, (230, 230, 230), -1)


def test_what_is_round_stays_round_when_the_size_changes(tmp_path, capsys):
    sizes = [(320, 180), (180, 320), (640, 360)]
    parts = [make_video(tmp_path / f"{w}.ts", [round_thing(w, h)] * 6) for w, h in sizes]
    (tmp_path / "call.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    images, _ = read(tmp_path / "call.ts")
    assert {image.shape for image in images} == {(180, 320, 3)}
    for image in (images[3], images[9], images[-2]):
        rows, columns = np.nonzero(image[..., 0] > 128)
        assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=2)
    said = capsys.readouterr().err
    assert "has pictures of 180 x 320 from 0.6 s on, which are fitted into 320 x 180" in said
    assert said.count("fitted into") == 2


def two_streams(path, sizes):
    """A preview of one picture before the film, without a mark of the default one."""
    with av.open(str(path), "w") as output:
        streams = []
        for width, height in sizes:
            stream = output.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.bit_rate = 400 * width * height
            streams.append(stream)
        for i in range(20):
            for stream in streams if i == 0 else streams[1:]:
                image = np.full((stream.height, stream.width, 3), 20 + 9 * i, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_the_stream_that_players_show(tmp_path, name):
    with VideoReader(two_streams(tmp_path / name, [(32, 24), (64, 48)])) as reader:
        assert (reader.width, reader.height, len(list(reader))) == (64, 48, 20)


def hdr_film(path, levels: list[float], curve: int):
    """A film of grey bars; levels: of the signal, 0..1."""
    luma = (64 + 876 * np.repeat(levels, 32)).round().astype(np.uint16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = len(luma), 32, "yuv420p10le"
        frame = av.VideoFrame(len(luma), 32, "yuv420p10le")
        for plane, values in zip(frame.planes, (luma, [512], [512]), strict=True):
            rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.colorspace, frame.color_range, frame.color_trc = 9, 1, curve
        context = stream.codec_context
        context.color_trc, context.colorspace, context.color_range = curve, 9, 1
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("curve", "levels"), [
    (PQ, [0.0, 0.4133, 0.5806, 0.7518]),  # 0, 36.5, 203 and 1000 cd/m2
    (HLG, [0.0, 0.3783, 0.75, 1.0]),
])  # fmt: skip
def test_hdr_looks_as_on_a_usual_screen(tmp_path, curve, levels):
    image = read(hdr_film(tmp_path / "in.mkv", levels, curve))[0][0]
    black, grey, paper, light = image[16, 16::32].astype(int).tolist()
    assert max(black) <= 1
    assert grey == pytest.approx([118] * 3, abs=3)
    assert paper == pytest.approx([248] * 3, abs=3)
    assert min(light) >= max(paper)
