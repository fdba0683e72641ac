"""Downloads from a local server, and hostile archives."""

import hashlib
import io
import tarfile
import zipfile

import pytest
from helpers.cameras import film_server

import check_data
import config
from data.downloads import SOURCES, Source, download, unpack
from utils import InputError

FILES = {"PennFudanPed/PNGImages/a.png": b"a" * 5000, "PennFudanPed/readme.txt": b"hello"}


def zipped(files, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, **fields):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def source(url="file:///x/data.zip", **fields):
    return Source(url, "PennFudanPed", **fields)


def names_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("make", [zipped, tarred])
def test_download_and_unpack_once(tmp_path, capsys, make):
    content = make(FILES)
    with film_server(content) as host:
        fetched = source(f"http://{host}/data.zip", md5=hashlib.md5(content).hexdigest())
        folder = download(fetched, tmp_path / "input")
    assert folder == tmp_path / "input" / "PennFudanPed"
    assert names_below(tmp_path / "input") == [
        "PennFudanPed/PNGImages/a.png", "PennFudanPed/readme.txt", "data.zip",
    ]  # fmt: skip
    assert (folder / "PNGImages" / "a.png").read_bytes() == b"a" * 5000
    download(fetched, tmp_path / "input")  # the server is gone
    assert "exists already" in capsys.readouterr().out


@pytest.mark.parametrize("spoiled", ["cut", "md5", "no server"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path, spoiled):
    content = zipped(FILES)
    md5 = "0000" if spoiled == "md5" else hashlib.md5(content).hexdigest()
    with film_server(content, share=0.5 if spoiled == "cut" else 1) as host:
        url = f"http://{'127.0.0.1:1' if spoiled == 'no server' else host}/data.zip"
        with pytest.raises(InputError, match=r"cannot be downloaded .* save it as .*data\.zip"):
            download(source(url, md5=md5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_put_there_by_hand_is_used_if_its_md5_is_right(tmp_path):
    (tmp_path / "data.zip").write_bytes(zipped(FILES))
    with pytest.raises(InputError, match=r"data\.zip: its md5 is not 0000"):
        download(source(md5="0000"), tmp_path)
    assert download(source(), tmp_path).is_dir()


def link(kind):
    return tarred({"PennFudanPed/a": b""}, type=kind, linkname="/etc/passwd")


def damaged(content):
    """With one bit of a file changed."""
    content = bytearray(content)
    content[content.index(b"aaaa") + 100] ^= 1
    return bytes(content)


def cut(content):
    return content[: len(content) // 3]


@pytest.mark.parametrize(
    "name", ["../owned", "PennFudanPed/../../owned", "/tmp/owned", "C:\\owned"]
)
def test_no_file_of_a_zip_leaves_its_folder(tmp_path, name):
    archive = tmp_path / "input" / "data.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped(FILES | {name: b""}))
    unpack(archive, "PennFudanPed", tmp_path / "input" / "PennFudanPed")
    below = names_below(tmp_path)
    assert all(name.startswith("input/PennFudanPed/") or name == "input/data.zip" for name in below)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tarred(FILES | {"../owned": b""}), "outside the destination"),
        (link(tarfile.SYMTYPE), "is a link to an absolute path"),
        (link(tarfile.LNKTYPE), "is a link to an absolute path"),
        (link(tarfile.FIFOTYPE), "is a special file"),
        (damaged(zipped(FILES)), "Bad CRC.*delete it and download again"),
        (cut(zipped(FILES)), "delete it and download again"),
        (cut(tarred(FILES)), "delete it and download again"),
        (b"<html>not found</html>", "delete it and download again"),
        (zipped({"Other/a": b""}), "No such file or directory.*PennFudanPed"),
    ],
    # An archive holds the time it was made at, which differs between the processes of one run.
    ids=lambda value: value if isinstance(value, str) else "archive",
)
def test_an_archive_that_means_harm_leaves_nothing(tmp_path, content, words):
    archive = tmp_path / "input" / "data.zip"
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        unpack(archive, "PennFudanPed", tmp_path / "input" / "PennFudanPed")
    assert "data.zip" in str(error.value)
    assert names_below(tmp_path) == ["input/data.zip"]


def test_the_flag_downloads_and_reports(data_dir, in_tmp, monkeypatch, capsys):
    assert tuple(SOURCES) == config.DOWNLOADS
    files = {f"PennFudanPed/{p.relative_to(data_dir)}": p.read_bytes()
             for p in data_dir.rglob("*.png")}  # fmt: skip
    (in_tmp / "input").mkdir()
    (in_tmp / "input" / "data.zip").write_bytes(zipped(files))
    monkeypatch.setitem(SOURCES, "pennfudan", source())
    check_data.main(["--download", "pennfudan"])
    assert (in_tmp / "input" / "PennFudanPed" / "train_images").is_dir()
    assert "6 pairs to train on, 3 to validate" in capsys.readouterr().out
