"""Pictures in and out: any file to RGB, label maps to colours, overlays with a legend."""

import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from config import IGNORE_INDEX
from errors import InputError
from files import write_atomically
from presets import Classes, Colour

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jfif",
}  # fmt: skip
IGNORED_COLOUR = (128, 128, 128)


def list_images(folder: Path) -> list[Path]:
    """Every picture below a folder, by file name extension, sorted; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _open(path: Path) -> Image.Image:
    """The decoded file. Pillow refuses a truncated one; cv2 would fill it with grey."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable picture ({error}); replace it") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too large to decode safely ({error})") from error
    return image


def read_image(path: Path, upright: bool = True) -> np.ndarray:
    """A picture as a viewer shows it, RGB (H, W, 3) uint8.

    Turned by its EXIF orientation where it is to be upright; 16-bit scaled to 8; grey, palette and
    CMYK converted; alpha dropped.
    """
    image = _open(path)
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit greyscale, which convert() would clip at 255
        grey = (np.asarray(image, np.float32) / 257).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise InputError(f"{path}: a floating-point picture; convert it to 8 or 16 bits")
    return np.array(image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """A mask's stored values: (H, W) integers, or RGB (H, W, 3) uint8. Palettes give indices."""
    image = _open(path)
    if image.mode == "LA":
        image = image.convert("L")
    elif image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    elif image.mode not in ("L", "P") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    return np.array(image)


def _save(image: Image.Image, path: Path, **options) -> None:
    encoded = io.BytesIO()
    image.save(encoded, format=Image.registered_extensions()[path.suffix.lower()], **options)
    write_atomically(path, encoded.getvalue())


def write_image(path: Path, image: np.ndarray) -> None:
    """RGB (H, W, 3) or grey (H, W) uint8, in the format that the file's extension names."""
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    _save(Image.fromarray(image), path, **({"quality": 92} if lossy else {}))


def write_mask(path: Path, labels: np.ndarray, palette: Sequence[Colour]) -> None:
    """Class ids (H, W) uint8 as a palette PNG: viewers show colours, programs read the ids."""
    image = Image.fromarray(labels, mode="P")
    image.putpalette(colour_table(palette).astype(np.uint8).tobytes())
    _save(image, path)


def colour_table(palette: Sequence[Colour]) -> np.ndarray:
    """(256, 3) uint8 colours by class id; ids without a colour are grey."""
    table = np.full((IGNORE_INDEX + 1, 3), IGNORED_COLOUR, np.uint8)
    table[: len(palette)] = palette
    return table


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Classes,
    alpha: float = 0.6,
) -> np.ndarray:
    """Class colours over a picture, with a legend of the classes that occur.

    Args:
        image: RGB (H, W, 3) uint8.
        labels: class ids (H, W) uint8, ignored ones 255.
        alpha: share of the colour, 0..1. Class 0 stays uncoloured where its colour is black.
    """
    names, palette = classes.names, classes.palette
    colours = colour_table(palette)[labels]
    blended = cv2.addWeighted(colours, alpha, image, 1 - alpha, 0)
    if tuple(palette[0]) == (0, 0, 0):
        blended[labels == 0] = image[labels == 0]
    present = [k for k in np.unique(labels) if k < len(names)]
    return draw_legend(blended, [names[k] for k in present], [palette[k] for k in present])


def draw_legend(image: np.ndarray, names: Sequence[str], palette: Sequence[Colour]) -> np.ndarray:
    """The picture with a box of colours and names in its upper left corner, if there is room."""
    height, width = image.shape[:2]
    scale = float(np.clip(min(height, width) / 640, 0.4, 3.0))
    thickness = max(1, round(scale))
    row, swatch = int(26 * scale), int(16 * scale)
    font = cv2.FONT_HERSHEY_SIMPLEX
    texts = [name.encode("ascii", "replace").decode() for name in names]  # all this font can draw
    widths = [cv2.getTextSize(text, font, 0.6 * scale, thickness)[0][0] for text in texts]
    rows = min(len(texts), max(0, (height - row // 2) // row))
    box_width = max(widths, default=0) + 3 * swatch
    if rows == 0 or box_width > width:
        return image
    image = image.copy()
    box = image[: rows * row + swatch // 2, :box_width]
    box[:] = box // 3
    for i in range(rows):
        top = i * row + swatch // 2
        corner = (swatch // 2 + swatch, top + swatch)
        colour = tuple(int(c) for c in palette[i])
        cv2.rectangle(image, (swatch // 2, top), corner, colour, cv2.FILLED)
        cv2.rectangle(image, (swatch // 2, top), corner, (255, 255, 255), 1)
        cv2.putText(
            image, texts[i], (2 * swatch, top + swatch - thickness), font, 0.6 * scale,
            (255, 255, 255), thickness, cv2.LINE_AA,
        )  # fmt: skip
    return image


def find_pictures(source: Path | None) -> list[Path]:
    """A folder's pictures, sub-folders included, or the one file."""
    if source is None:
        raise InputError("--input is missing; give a folder or a picture")
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder; --input wants pictures")
    paths = list_images(source)
    if not paths:
        raise InputError(f"{source}: no pictures in it ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def output_names(paths: Sequence[Path], source: Path) -> dict[Path, Path]:
    """Where each result goes, relative to the output folder, without extension.

    Sub-folders are kept; pictures that differ in their extension alone keep it in the name.
    """
    root = source if source.is_dir() else source.parent
    stems = Counter(path.with_suffix("") for path in paths)
    return {
        path: (
            path.with_suffix("")
            if stems[path.with_suffix("")] == 1
            else path.with_name(path.name.replace(".", "_"))
        ).relative_to(root)
        for path in paths
    }


def read_pictures(
    paths: Iterable[Path], batch_size: int, problems: list[str]
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Batches of (path, RGB picture); what cannot be read is added to problems and left out."""
    batch = []
    for path in paths:
        try:
            batch.append((path, read_image(path)))
        except InputError as error:
            problems.append(str(error))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def save_prediction(
    target: Path,
    image: np.ndarray,
    prediction,
    classes: Classes,
    kinds: Collection[str],
    alpha: float,
) -> None:
    """Write `target`_overlay.jpg, _mask.png, _confidence.png, _probabilities.npz: those in kinds.

    prediction: labels (H, W), confidence (H, W), probabilities (K, H, W), see predictor.Prediction.
    """

    def named(ending: str) -> Path:
        return target.with_name(target.name + ending)

    if "overlay" in kinds:
        drawn = overlay(image, prediction.labels, classes, alpha)
        write_image(named("_overlay.jpg"), drawn)
    if "mask" in kinds:
        write_mask(named("_mask.png"), prediction.labels, classes.palette)
    if "confidence" in kinds:
        levels = (255 * prediction.confidence).round().astype(np.uint8)
        write_image(named("_confidence.png"), levels)
    if "probabilities" in kinds:
        content = io.BytesIO()
        np.savez_compressed(content, probabilities=prediction.probabilities)
        write_atomically(named("_probabilities.npz"), content.getvalue())
