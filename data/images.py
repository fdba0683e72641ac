"""Read and write pictures and masks, and list the pictures of a folder."""

import io
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.labels.classes import Colour, colour_table
from utils import InputError, write_atomically

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm",
    ".avif", ".jp2", ".heic", ".heif",
}  # fmt: skip
SYSTEM_FOLDERS = {"@eaDir", "__MACOSX"}  # thumbnails of network drives, of macOS archives
ORIENTATION, UPRIGHT = 0x0112, 1  # EXIF's tag, and its value for a picture that is not turned
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TAGS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # texts with an orientation
# Pillow warns above this number of pixels and refuses twice as many: 500 megapixels, 1.5 GB.
Image.MAX_IMAGE_PIXELS = 250_000_000


def is_picture(path: Path) -> bool:
    """Whether a file is taken for a picture: by its extension; hidden files are none."""
    known = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return known and path.is_file()


def list_images(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted."""
    return sorted(filter(is_picture, walk(folder)))


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder.

    Hidden folders and SYSTEM_FOLDERS are left out. Links to folders are followed; a folder that
    can be reached twice, by a loop say, is visited once.
    """
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        shown = [f for f in folders if not f.startswith(".") and f not in SYSTEM_FOLDERS]
        folders[:] = sorted(shown, key=lambda name: os.path.islink(os.path.join(where, name)))
        yield from (Path(where, name) for name in files)


def _open(path: Path, upright: bool = True) -> Image.Image:
    """The decoded file. Pillow refuses a truncated one; cv2 would fill it with grey.

    upright: apply the EXIF orientation.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large pictures and damage that Pillow repairs
            image = Image.open(path)
            deep = any(";16" in str(tile[-1]) for tile in image.tile)
            image.load()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise InputError(f"{path}: more than {limit} megapixels; cut it into tiles") from error
    except Exception as error:  # damaged files raise errors of many kinds, struct.error and others
        if path.suffix.lower() in (".heic", ".heif"):
            raise InputError(f"{path}: HEIC cannot be read; save it as JPEG or PNG") from error
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable picture ({reason}); replace it") from error
    if upright:
        with suppress(Exception):  # if the tags are damaged the picture stays as it is stored
            image = ImageOps.exif_transpose(image)
    image.info["deep"] = deep and not image.mode.startswith("I")
    return image


def orientation(path: Path) -> int:
    """The EXIF orientation of a picture's file, 1 to 8; UPRIGHT where it has none."""
    with suppress(Exception), Image.open(path) as header:  # tags may be damaged
        if header.format != "PNG" or _has_png_tags(path):
            return header.getexif().get(ORIENTATION, UPRIGHT)
    return UPRIGHT


def _has_png_tags(path: Path) -> bool:
    """Whether a PNG may have an orientation. Pillow would decode it, as tags may come last."""
    start = len(PNG_SIGNATURE)
    with path.open("rb") as file:
        while True:
            file.seek(start)
            chunk = file.read(32)
            if len(chunk) < 12:
                return False
            length, kind = struct.unpack(">I4s", chunk[:8])
            if kind == b"eXIf" or chunk[8:].startswith(PNG_TAGS):
                return True
            start += length + 12


def upright_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture as a viewer shows it, read from its header."""
    try:
        with Image.open(path) as header:
            width, height = header.size
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable picture ({reason}); replace it") from error
    sideways = orientation(path) >= 5  # 5 to 8 are quarter turns
    return (width, height) if sideways else (height, width)


def read_image(path: Path, upright: bool = True) -> np.ndarray:
    """A picture as a viewer shows it, RGB (H, W, 3) uint8.

    16-bit grey is scaled to 8 bits; grey, palette and CMYK are converted; alpha is dropped.
    upright: apply the EXIF orientation.
    """
    image = _open(path, upright)
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        grey = (np.asarray(image, np.float32) / 257).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise InputError(f"{path}: a floating-point picture; convert it to 8 or 16 bits")
    return np.array(image.convert("RGB"))


def num_frames(path: Path) -> int:
    """The number of frames or pages of a readable picture; 1 where only the first is whole.

    A photograph in MPO, as phones store them, counts as 1: the others are its depth or brightness.
    """
    with warnings.catch_warnings(), suppress(Exception):  # damaged files raise many errors
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    return 1


def read_mask(path: Path) -> tuple[np.ndarray, dict[int, Colour]]:
    """A mask's stored values, and its palette {index: colour}, which is empty without one.

    The values are (H, W) integers, or RGB (H, W, 3) uint8; a palette file's are its indices. The
    EXIF orientation is applied. A picture of one colour with transparent parts gives its alpha.
    """
    image = _open(path)
    if image.info["deep"]:
        raise InputError(
            f"{path}: colours of 16 bits, which would be cut to 8 bits; save it as an 8-bit PNG, "
            "or as 16-bit grey"
        )
    if image.mode == "P":
        colours = np.reshape(image.getpalette("RGB")[: 3 * 256], (-1, 3)).tolist()
        return np.array(image), {index: tuple(colour) for index, colour in enumerate(colours)}
    if image.mode == "1":
        return np.array(image, np.uint8), {}
    if image.mode == "F":
        return _whole_numbers(path, np.array(image)), {}
    image = _alpha_mask(image) or image
    if image.mode == "LA":
        image = image.convert("L")
    elif image.mode != "L" and not image.mode.startswith("I"):
        image = image.convert("RGB")
    return np.array(image), {}


def _alpha_mask(image: Image.Image) -> Image.Image | None:
    """The alpha channel, if it is not opaque and all else is of one colour: it holds the mask."""
    if image.mode not in ("RGBA", "LA"):
        return None
    *colours, (lowest, _) = image.getextrema()
    is_one_colour = all(low == high for low, high in colours)
    return image.getchannel("A") if is_one_colour and lowest < 255 else None


def _whole_numbers(path: Path, values: np.ndarray) -> np.ndarray:
    """The values of a floating-point mask as int32; raises InputError if one is no whole number."""
    numbers = np.nan_to_num(values, nan=0.5).clip(-(2**30), 2**30)
    whole = numbers.astype(np.int32)
    if (whole != numbers).any():
        example = values[whole != numbers][0]
        raise InputError(
            f"{path}: a floating-point mask with values such as {example:g}; save class ids as "
            "whole numbers, in an 8-bit or 16-bit PNG"
        )
    return whole


def _save(image: Image.Image, path: Path) -> None:
    encoded = io.BytesIO()
    format_name = Image.registered_extensions()[path.suffix.lower()]
    image.save(encoded, format_name, quality=92)  # of JPEG; PNG has none
    write_atomically(path, encoded.getvalue())


def write_image(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) or grey (H, W) uint8 in the format that the file's extension names."""
    _save(Image.fromarray(image), path)


def write_mask(path: Path, labels: np.ndarray, palette: Sequence[Colour]) -> None:
    """Write class ids (H, W) uint8 as a palette PNG: viewers show colours, programs read ids."""
    image = Image.fromarray(labels, mode="P")
    image.putpalette(colour_table(palette).tobytes())
    _save(image, path)
