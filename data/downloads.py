"""Public data sets by name: download, verify and unpack them into the input folder."""

import os
import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from torchvision.datasets.utils import check_md5, download_url
from torchvision.datasets.voc import DATASET_YEAR_DICT

from config import INPUTS
from utils import InputError, temporary_folder

GIB = 2**30
DAMAGE = (EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    folder: its name below the input folder. inside: the path of that folder in the archive.
    max_bytes: largest total size of the unpacked files. md5: of the archive, if published.
    """

    url: str
    folder: str
    inside: str
    max_bytes: int
    md5: str | None = None

    @property
    def archive(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def _voc2012() -> Source:
    voc = DATASET_YEAR_DICT["2012"]
    url = f"{voc['url'].rsplit('/', 1)[0]}/{voc['filename']}"
    return Source(url, "VOC2012", voc["base_dir"].replace(os.sep, "/"), 4 * GIB, voc["md5"])


PENN_FUDAN_URL = "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip"
SOURCES = {
    "pennfudan": Source(PENN_FUDAN_URL, "PennFudanPed", "PennFudanPed", GIB),
    "voc2012": _voc2012(),
}


def download(source: Source, root: Path = INPUTS) -> Path:
    """The data set's folder below root. An archive that is already in root is not fetched again."""
    folder, archive = root / source.folder, root / source.archive
    if folder.is_dir():
        print(f"{folder} exists already")
        return folder
    if not archive.is_file():
        _retrieve(source, archive)
    elif source.md5 and not check_md5(archive, source.md5):
        raise InputError(f"{archive}: its md5 is not {source.md5}; delete it and download again")
    unpack(archive, source, folder)
    print(f"unpacked to {folder}; {archive} can be deleted")
    return folder


def _retrieve(source: Source, archive: Path) -> None:
    """Download into a temporary folder, then move the whole file to its place."""
    try:
        with temporary_folder(archive) as staging:
            download_url(source.url, staging, source.archive, source.md5)
            os.replace(staging / source.archive, archive)
    except (OSError, HTTPException, RuntimeError) as error:
        raise InputError(
            f"{source.url}: cannot be downloaded ({error}); run the command again, or fetch it "
            f"another way and save it as {archive}"
        ) from error


def unpack(archive: Path, source: Source, folder: Path) -> None:
    """Unpack the archive's folder `inside` as `folder`, or leave nothing behind.

    zipfile drops `..` and drive letters from names and writes links as plain files; tarfile's
    "data" filter refuses links, devices and paths that lead out of the folder.
    """
    try:
        with temporary_folder(folder) as staging:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    _check_size(archive, [m.file_size for m in opened.infolist()], source.max_bytes)
                    opened.extractall(staging)
            else:
                with tarfile.open(archive) as opened:
                    _check_size(archive, [m.size for m in opened], source.max_bytes)
                    opened.extractall(staging, filter="data")
            inside = staging / source.inside
            if not inside.is_dir() or inside.is_symlink():
                raise InputError(
                    f"{archive}: no folder {source.inside}/ in it; a different archive"
                )
            shutil.move(inside, folder)
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked to {folder} ({error})") from error
    except DAMAGE as error:
        reason = f"{archive}: damaged or unsafe ({error}); delete it and download again"
        raise InputError(reason) from error


def _check_size(archive: Path, sizes: list[int], max_bytes: int) -> None:
    if sum(sizes) > max_bytes:
        raise InputError(
            f"{archive}: would unpack to {sum(sizes)} bytes, expected at most {max_bytes}; "
            "delete it and download again"
        )
