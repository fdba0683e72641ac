"""infer_video.py on cameras and addresses: nothing leaks, and what is lost is told."""

import itertools
import os
from pathlib import Path

import pytest
from helpers.cameras import camera, film_server, server
from helpers.stubs import fails
from helpers.videos import grey_frames, make_video, noise_frames, read
from helpers.waiting import LIMIT
from PIL import Image

import infer_video
from results import video_files
from utils import public_name, without_secrets
from video import source

RESULTS = Path("outputs/inference_results_video")
SECRETS = ("S3cret", "T0KEN", "admin")


def films():
    return sorted(RESULTS.glob("*.mp4"))


def assert_no_secret(folder, *said):
    for path in folder.rglob("*"):
        texts = [str(path.relative_to(folder)).encode()]
        texts += [path.read_bytes()] if path.is_file() else []
        assert not [s for s in SECRETS for text in texts if s.encode() in text], path
    assert not [secret for secret in SECRETS for text in said if secret in text]


def test_a_camera_that_closes_is_told_and_recorded_anew(stub, in_tmp, capsys, monkeypatch):
    for _ in range(2):
        with camera(fps=30, count=15) as host:
            address = f"http://admin:S3cret@{host}/video?token=T0KEN"
            argv = ["--input", address, "--save", "overlay,csv"]
            monkeypatch.setattr("sys.argv", ["infer_video.py", *argv])
            message = fails(capsys, infer_video.main, *argv)
        assert f"http://{host}/video: connection lost after 0." in message
        assert message.endswith("; what came before is kept")
    assert [len(read(path)[1]) for path in films()] == [15, 15]
    assert_no_secret(in_tmp, message)
    page = (RESULTS / "index.html").read_text(encoding="utf-8")
    assert f"http://{host}/video" in page


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("name", "sized"), [("in.ts", False), ("in.ts", True), ("in.mp4", True)])
def test_a_connection_that_breaks_keeps_the_film_and_is_told(
    stub, in_tmp, capsys, name, sized, reset
):
    options = {"movflags": "+faststart"} if name == "in.mp4" else {}
    data = make_video(in_tmp / name, noise_frames(40), gop=5, options=options).read_bytes()
    with film_server(data, 0.7, sized, reset) as host:
        message = fails(capsys, infer_video.main, "--input", f"http://u:S3cret@{host}/{name}?x=1")
    assert f"error: http://{host}/{name}: connection lost after 2." in message
    (film,) = films()
    assert 15 < len(read(film)[1]) < 40
    assert_no_secret(RESULTS, message)


def test_sound_whose_own_connection_breaks_is_told(stub, in_tmp, capsys):
    data = make_video(
        in_tmp / "in.mp4", noise_frames(40), sound="aac", options={"movflags": "+faststart"}
    ).read_bytes()
    answers = itertools.count(1)

    def send(write):  # pictures are read by the first connection
        write(data if next(answers) != 2 else data[: len(data) // 2])

    with server(send, {"Content-Length": str(len(data))}, reset=False) as host:
        message = fails(capsys, infer_video.main, "--input", f"http://{host}/in.mp4")
    assert "in.mp4: connection lost: its sound stops at 1." in message
    assert len(read(films()[0])[1]) == 40


def test_a_film_at_an_address_is_whole_and_keeps_its_sound(stub, in_tmp, capsys):
    data = make_video(
        in_tmp / "in.mp4", grey_frames(20), sound="aac", options={"movflags": "+faststart"}
    ).read_bytes()
    for sized in (True, False):
        with film_server(data, sized=sized) as host:
            argv = ["--input", f"http://{host}/in.mp4?Signature={'T0KEN' * 80}"]
            infer_video.main(argv)
            infer_video.main(argv)  # again: its own result
    assert [len(read(path)[1]) for path in films()] == [20, 20]
    assert capsys.readouterr().err == ""
    assert_no_secret(RESULTS)


def test_another_film_at_the_same_address_does_not_replace_the_first(stub, in_tmp, capsys):
    address = in_tmp / "address" / "in.mp4"
    for number in (5, 8):
        address.parent.mkdir(exist_ok=True)
        make_video(address, noise_frames(number))
        if number == 5:
            infer_video.main(["--input", f"file://{address}"])
    message = fails(capsys, infer_video.main, "--input", f"file://{address}")
    assert "is there already, made of file://" in message
    assert len(read(films()[0])[1]) == 5


@pytest.mark.parametrize(
    ("patience", "silence", "rows"), [(LIMIT, 0.3, 20), (4.0, LIMIT, 10)], ids=["short", "long"]
)
def test_a_short_silence_is_waited_out_and_a_long_one_is_told(
    stub, in_tmp, capsys, monkeypatch, patience, silence, rows
):
    monkeypatch.setattr(source, "SILENCE", patience)
    with camera(fps=30, count=20, silence=silence) as host:
        message = fails(capsys, infer_video.main, "--input", f"http://{host}/", "--save", "csv")
    assert ("no data for" in message) == (rows == 10)
    (table,) = RESULTS.glob("*.csv")
    assert len(table.read_text().splitlines()) == rows + 1


def test_a_clip_of_a_camera_ends_without_an_error(stub, in_tmp, capsys):
    with camera(fps=30, count=40) as host:
        infer_video.main(["--input", f"http://{host}/", "--duration", "0.5"])
    assert len(films()) == 1


@pytest.mark.parametrize(("flag", "words"), [
    (["--out-dir"], "--out-dir: http://host/x is an address"),
    (["--codec"], "--codec: http://host/x is an address"),
    (["--model"], "--model: http://host/x is an address"),
    ([], "unexpected 'http://host/x'"),
])  # fmt: skip
def test_an_address_is_taken_by_input_alone(stub, in_tmp, capsys, flag, words):
    with pytest.raises(SystemExit) as stop:
        infer_video.main(["--input", "in.mp4", *flag, "http://admin:S3cret@host/x?token=T0KEN"])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in said.replace("http:/h", "http://h")
    assert_no_secret(in_tmp, said)


@pytest.mark.parametrize(("address", "words"), [
    ("admin:S3cret@127.0.0.1:9/video?token=T0KEN", "127.0.0.1:9/video does not exist; give"),
    ("http//admin:S3cret@127.0.0.1:9/video?token=T0KEN", "127.0.0.1:9/video does not exist"),
    ("RTSP://admin:S3cret@127.0.0.1:9/video", "RTSP://127.0.0.1:9/video cannot be opened"),
    ("http://admin:S3cret@127.0.0.1:9/video?token=T0KEN", "http://127.0.0.1:9/video"),
])  # fmt: skip
def test_an_address_that_gives_no_film(stub, in_tmp, capsys, address, words):
    message = fails(capsys, infer_video.main, "--input", address)
    assert words in message
    assert "Protocol not found" not in message
    assert_no_secret(in_tmp, message)


def test_a_film_that_needs_to_be_downloaded_first_is_told(stub, in_tmp, capsys):
    data = make_video(in_tmp / "in.mp4", noise_frames(100)).read_bytes()  # its index at the end
    with film_server(data) as host:  # which gives it from the beginning alone
        message = fails(capsys, infer_video.main, "--input", f"http://{host}/in.mp4")
    assert "download it and give the file" in message


@pytest.mark.parametrize(("address", "name"), [
    ("rtsp://admin:p@ss/w0rd@host/path", "rtsp://host/path"),
    ("rtsp://admin:pa#ss@host:554/path", "rtsp://host:554/path"),
    ("rtsp://admin:pa?ss@host/path?x=1#y", "rtsp://host/path"),
    ("rtsp://host:554/user=admin&password=S3cret&channel=1.sdp", "rtsp://host:554"),
    ("http://host/a%3Ftoken%3DT0KEN", "http://host/a"),
    ("http://[::1]:80/a/b.mp4;jsessionid=S3cret/c", "http://[::1]:80/a/b.mp4"),
    ("srt://host:9000?passphrase=S3cret", "srt://host:9000"),
    ("rtmp://host/app live=1 pubPasswd=S3cret", "rtmp://host"),
    ("--input=http://u:S3cret@host/a", "--input=http://host/a"),
    ("photos/a?b=c", "photos/a?b=c"),
])  # fmt: skip
def test_the_public_name_of_a_source(address, name):
    assert public_name(address) == name
    text = f"{address.split()[0]} cannot be opened ({address.split()[0]})"
    assert "S3cret" not in without_secrets(text)


@pytest.mark.parametrize(("said", "shown"), [
    (f"{Path('http://u:S3cret@h/x?token=T0KEN')}: no such file", "http:/h/x: no such file"),
    ("unexpected 'http://u:S3cret@h/x?a=1'; which flag", "unexpected 'http://h/x'; which flag"),
    ("C:/data/a@2x#b?c: no such file", "C:/data/a@2x#b?c: no such file"),
])  # fmt: skip
def test_addresses_in_a_text_lose_their_secrets_alone(said, shown):
    assert without_secrets(said) == shown


@pytest.mark.parametrize("letter", ["v", "視"])
def test_long_names_are_cut_to_what_fits_and_stay_two(stub, in_tmp, letter):
    made = make_video(in_tmp / "in.mp4", grey_frames(3))
    for last in "ab":
        name = letter * (246 // len(letter.encode())) + last
        made = made.rename(in_tmp / f"{name}.mp4")
        infer_video.main(["--input", str(made), "--save", "overlay,mask,side-by-side,csv"])
    assert len(films()) == 6
    assert all(path.name.startswith(letter * 60) for path in films())


@pytest.mark.parametrize("at_once", [False, True])
def test_what_another_start_writes_is_left_alone(stub, in_tmp, capsys, monkeypatch, at_once):
    path = make_video(in_tmp / "in.mp4", grey_frames(3))
    with video_files.VideoReader(path) as reader:
        if at_once:  # both have looked before either of them opens its files
            seen = video_files.result_paths(RESULTS, reader)
            monkeypatch.setattr(video_files, "result_paths", lambda *_: seen)
        arguments = RESULTS, reader, stub.classes, ["overlay"], 18, "libx264"
        with video_files.VideoResults(*arguments):
            message = fails(capsys, infer_video.main, "--input", path, "--save", "csv")
    assert "in.mp4 is being written by another start" in message


def test_a_start_that_ends_before_its_first_frame_replaces_nothing(stub, in_tmp):
    path = make_video(in_tmp / "in.mp4", grey_frames(3))
    infer_video.main(["--input", str(path), "--save", "overlay,csv"])
    before = (RESULTS / "in.csv").read_text()
    with (
        video_files.VideoReader(path) as reader,
        video_files.VideoResults(RESULTS, reader, stub.classes, ["overlay", "csv"], 18, "libx264"),
    ):
        pass
    assert (RESULTS / "in.csv").read_text() == before


@pytest.mark.parametrize(("name", "words"), [
    ("moving.webp", "is an animated WebP, which FFmpeg does not read"),
    ("pipe", "is a pipe or a device"),
])  # fmt: skip
def test_what_is_no_film_is_named(stub, in_tmp, capsys, name, words):
    frames = [Image.fromarray(image) for image in grey_frames(3)]
    frames[0].save(in_tmp / "moving.webp", save_all=True, append_images=frames[1:])
    os.mkfifo(in_tmp / "pipe")
    assert words in fails(capsys, infer_video.main, "--input", name)
