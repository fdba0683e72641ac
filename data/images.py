"""Read and write pictures and masks, and list the pictures of a folder."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from config import OUTPUTS
from data.arrays import array_size, is_array, read_array
from data.labels.classes import Colour, colour_table
from data.numbers import (
    ValueRange,
    colour_numbers,
    extremes_of,
    grey_numbers,
    is_deep_colour,
    raw_mode,
)
from utils import InputError, write_atomically

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm",
    ".avif", ".jp2", ".heic", ".heif",
}  # fmt: skip
SYSTEM_FOLDERS = {"@eaDir", "__MACOSX"}  # thumbnails of network drives, of macOS archives
ORIENTATION, UPRIGHT = 0x0112, 1  # EXIF's tag, and its value for a picture that is not turned
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # what turns a stored picture upright  # fmt: skip
WIDTH, HEIGHT, EXTRA_SAMPLES = 256, 257, 338  # tags of TIFF
PNG_TAGS = (b"eXIf", b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # with an orientation
# Pillow warns above this number of pixels and refuses twice as many: 500 megapixels, 1.5 GB.
Image.MAX_IMAGE_PIXELS = 250_000_000


def is_picture(path: Path) -> bool:
    """Whether a file, or a link that leads nowhere, is taken for a picture: by its extension."""
    known = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return known and (path.is_file() or path.is_symlink())


def list_images(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted."""
    return sorted(filter(is_picture, walk(folder)))


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder.

    Hidden folders, SYSTEM_FOLDERS and this project's OUTPUTS are left out. Links to folders are
    followed; a folder that can be reached twice, by a loop say, is visited once.
    """
    seen = {os.path.realpath(OUTPUTS)} - {os.path.realpath(folder)}
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

    upright: apply the EXIF orientation. image.info: "raw" is raw_mode, "tags" those of TIFF.
    """
    try:
        # Without the path, as Pillow would map a TIFF with the size that it has when turned.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large pictures and damage that Pillow repairs
            image = Image.open(file)
            raw, tags = raw_mode(image), dict(getattr(image, "tag_v2", {}))
            image.load()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise InputError(f"{path}: more than {limit} megapixels; cut it into tiles") from error
    except Exception as error:  # damaged files raise errors of many kinds, struct.error and others
        if path.suffix.lower() in (".heic", ".heif"):
            raise InputError(f"{path}: HEIC cannot be read; save it as JPEG or PNG") from error
        raise _unreadable(path, error) from error
    turn = tags.get(ORIENTATION, UPRIGHT) if tags else _turn_of(image)
    is_upright = bool(tags) and ORIENTATION not in image.tag_v2  # Pillow has turned it
    if turn in TURNS and upright != is_upright:
        back = {6: 8, 8: 6}.get(turn, turn)
        image = image.transpose(TURNS[turn if upright else back])
    image.info |= {"raw": raw, "tags": tags}
    return image


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{path}: not a readable picture ({reason}); replace it")


def _turn_of(image: Image.Image) -> int:
    """The orientation in an opened file's tags, 1 to 8; UPRIGHT where there is none of these."""
    with suppress(Exception):  # tags may be damaged
        turn = image.getexif().get(ORIENTATION)
        return turn if turn in TURNS else UPRIGHT
    return UPRIGHT


def orientation(path: Path) -> int:
    """The EXIF orientation of a picture's file, 1 to 8; UPRIGHT where it has none."""
    with suppress(Exception), Image.open(path) as header:
        # Of a PNG, Pillow would decode the pixels, as tags may come last.
        content = path.read_bytes() if header.format == "PNG" else b""
        if not content or any(tag in content for tag in PNG_TAGS):
            return _turn_of(header)
    return UPRIGHT


def upright_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture as a viewer shows it, or of an array, read from its header."""
    if is_array(path):
        return array_size(path)
    try:
        with Image.open(path) as header:
            width, height = header.size
            if header.format == "TIFF":  # some versions of Pillow give the size when turned
                width, height = header.tag_v2[WIDTH], header.tag_v2[HEIGHT]
    except Exception as error:
        raise _unreadable(path, error) from error
    sideways = orientation(path) >= 5  # 5 to 8 are quarter turns
    return (width, height) if sideways else (height, width)


def read_image(
    path: Path, upright: bool = True, value_range: ValueRange | None = None
) -> np.ndarray:
    """A picture as a viewer shows it, RGB (H, W, 3) uint8.

    Grey, palette and CMYK are converted; what is transparent lies on white. upright: apply the EXIF
    orientation. value_range: of the numbers in pictures of more than 8 bits; by default that of the
    picture itself.
    """
    image = _open(path, upright)
    numbers = _numbers(path, image, upright)
    if numbers is not None:
        value_range = value_range or ValueRange.of([extremes_of(numbers)])
        shown = Image.fromarray(value_range.to_8_bits(numbers)).convert("RGB")
        if image.mode == "RGBA" and image.size == shown.size:
            shown.putalpha(image.getchannel("A"))
        shown.info["tags"] = image.info["tags"]
        image = shown
    if image.mode == "F":
        raise InputError(f"{path}: a floating-point picture; convert it to 8 or 16 bits")
    return np.array(_on_white(image).convert("RGB"))


def _numbers(path: Path, image: Image.Image, upright: bool) -> np.ndarray | None:
    """The numbers of an opened picture of more than 8 bits, (H, W) or (H, W, 3); else None."""
    if is_deep_colour(image.info["raw"]):
        return colour_numbers(path, upright)
    return grey_numbers(image, image.info["tags"])


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with what is transparent on white, as viewers show it."""
    # A fourth channel of a TIFF is transparency only if a tag says so; it may be infrared.
    tags = image.info["tags"]
    if not image.has_transparency_data or (tags and EXTRA_SAMPLES not in tags):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def number_extremes(path: Path) -> tuple[int, int] | None:
    """The (low, high) numbers in a picture of more than 8 bits; None for other files."""
    with suppress(Exception), Image.open(path) as header:
        deep = header.mode.startswith("I") or is_deep_colour(raw_mode(header))
        if deep or (header.mode == "L" and header.format == "TIFF"):
            numbers = _numbers(path, _open(path), True)
            return None if numbers is None else extremes_of(numbers)
    return None


def range_note(path: Path, value_range: ValueRange | None = None) -> str:
    """What to tell of a picture that is scaled in a way that nobody asked for; "" if it is not.

    value_range: as read_image is given.
    """
    extremes = number_extremes(path)
    if extremes is None:
        return ""
    if value_range:
        return value_range.misfit(extremes)
    own = ValueRange.of([extremes])
    known = own in (ValueRange(0, 255), ValueRange(0, 65535))
    return "" if known else f"its numbers {own} became black to white"


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
    if is_array(path):
        values = read_array(path)
        return _whole_numbers(path, values) if values.dtype.kind == "f" else values, {}
    image = _open(path)
    if is_deep_colour(image.info["raw"]):
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
    if image.mode in ("RGBA", "LA"):
        *colours, (lowest, _) = image.getextrema()
        if lowest < 255 and all(low == high for low, high in colours):
            return np.array(image.getchannel("A")), {}
        image = image.convert(image.mode[:-1])
    elif image.mode != "L" and not image.mode.startswith("I"):
        image = image.convert("RGB")
    return np.array(image), {}


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
