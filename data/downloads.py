"""Public data sets by name: download, verify and unpack them into the input folder."""

import os
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import check_md5, download_url

from config import INPUTS
from utils import InputError, temporary_folder


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    inside: path of its folder in the archive; the folder keeps its name below the input folder.
    md5: of the archive, if published.
    """

    url: str
    inside: str
    md5: str | None = None


SOURCES = {
    "pennfudan": Source(
        "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip", inside="PennFudanPed"
    ),
    "voc2012": Source(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        inside="VOCdevkit/VOC2012",
        md5="6cd6e144f989b92b3379bac3b3de84fd",
    ),
}


def download(source: Source, root: Path = INPUTS) -> Path:
    """The data set's folder below root. An archive that is already in root is not fetched again."""
    folder, archive = root / Path(source.inside).name, root / Path(source.url).name
    if folder.is_dir():
        print(f"{folder} exists already")
        return folder
    if archive.is_file():
        if source.md5 and not check_md5(archive, source.md5):
            raise InputError(
                f"{archive}: its md5 is not {source.md5}; delete it and download again"
            )
    else:
        try:
            with temporary_folder(archive) as staging:
                download_url(source.url, staging, archive.name, source.md5)
                os.replace(staging / archive.name, archive)
        except Exception as error:  # of networks, of many kinds
            raise InputError(
                f"{source.url}: cannot be downloaded ({error}); run the command again, or fetch it "
                f"another way and save it as {archive}"
            ) from error
    unpack(archive, source.inside, folder)
    print(f"unpacked to {folder}; {archive} can be deleted")
    return folder


def unpack(archive: Path, inside: str, folder: Path) -> None:
    """Unpack the archive's folder `inside` as `folder`, or leave nothing behind.

    zipfile drops `..` and drive letters from names and writes links as plain files; tarfile's
    "data" filter refuses links, devices and paths that lead out of the folder.
    """
    try:
        with temporary_folder(folder) as staging:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    opened.extractall(staging)
            else:
                with tarfile.open(archive) as opened:
                    opened.extractall(staging, filter="data")
            shutil.move(staging / inside, folder)
    except Exception as error:  # of damaged archives, of many kinds, or of a full disk
        raise InputError(
            f"{archive}: cannot be unpacked to {folder} ({error}); if it is damaged, delete it and "
            "download again"
        ) from error
