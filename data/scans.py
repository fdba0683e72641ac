"""What the files of a data set hold, read once and cached until a file changes."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from config import OUTPUTS
from data.annotations.shapes import Annotation
from data.arrays import is_array
from data.images import UPRIGHT, is_picture, num_frames, number_extremes, orientation, upright_size
from data.labels.classes import Colour
from data.labels.masks import (
    colour_code,
    colour_of,
    count_values,
    is_grey,
    rgb_of,
    used_colours,
    value_codes,
)
from data.pairs import Pair, SizeMismatch, read_stored
from utils import InputError, progress, remove_leftovers, write_atomically

SCAN_VERSION = 5  # of the cache file
KEPT_VALUES = 4096  # per mask; a lossy one has tens of thousands
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF")
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
LOSSY_IN_WEBP = b"VP8 "  # the chunk of its pixels


@dataclass(frozen=True)
class Scan:
    """What the files of a pair hold.

    values: {stored mask value or colour code: pixels}, the KEPT_VALUES most frequent. dropped:
    pixels of all other values. palette: {index: colour code} of the indices that occur. kind: how
    the mask stores its values. digest: of the image's pixels. turned: "turned" if the image has an
    EXIF rotation, "raw" if the mask fits it only without that. lossy: the mask is a JPEG or the
    like. spread: the largest difference between the channels of a pixel of the mask. enlarged: the
    mask is a smaller copy, read at its image's size. frames: or pages of image or mask, the larger
    number, of which the first is read. numbers: (low, high) in a picture of more than 8 bits.
    problem: why the pair cannot be used; is_mismatch: because its sizes differ.
    """

    values: dict[int, int] = field(default_factory=dict)
    dropped: int = 0
    palette: dict[int, int] = field(default_factory=dict)
    kind: str = ""
    digest: str = ""
    turned: str = ""
    lossy: bool = False
    spread: int = 0
    enlarged: bool = False
    frames: int = 1
    numbers: tuple[int, int] | None = None
    problem: str | None = None
    is_mismatch: bool = False

    @property
    def is_colour(self) -> bool:
        return self.kind.startswith("RGB")

    @property
    def is_grey(self) -> bool:
        return self.kind == "RGB, all of it grey"

    @property
    def stored(self) -> tuple[np.ndarray, dict[int, Colour]]:
        """Its values as a mask of one row, with their palette, as read_mask gives a file's."""
        codes = np.array(list(self.values), np.int64)[None]
        if self.is_colour:
            return rgb_of(codes), {}
        palette = {index: colour_of(code) for index, code in self.palette.items()}
        return (codes.astype(np.uint8) if palette else codes), palette

    @property
    def needs_colours(self) -> bool:
        """Whether only class colours can explain the values."""
        return self.kind == "RGB"


def scan_pairs(pairs: Sequence[Pair]) -> dict[Pair, Scan]:
    """Read every image and mask, except those that `keep_scans` has cached.

    A pair that cannot be read becomes a Scan with its problem.
    """
    cached = _load_cache(_cache_file(pairs)) if pairs else {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scans = pool.map(lambda pair: cached.get(pair_key(pair)) or _scan_pair(pair), pairs)
        return dict(zip(pairs, progress(scans, "checking", len(pairs)), strict=True))


def keep_scans(scans: Mapping[Pair, Scan]) -> None:
    """Cache the scans of the files that could be read; a full disk is no error."""
    content = {pair_key(pair): asdict(scan) for pair, scan in scans.items() if not scan.problem}
    text = json.dumps({"version": SCAN_VERSION, "pairs": content})
    if content:
        path = _cache_file(scans)
        remove_leftovers(path.parent)
        with suppress(InputError):  # only a cache: the next run reads the files again
            write_atomically(path, text.encode())


def _cache_file(pairs: Iterable[Pair]) -> Path:
    paths = [os.path.abspath(path) for pair in pairs for path in pair.files]
    try:
        root = os.path.commonpath(paths)
    except ValueError:  # images and masks on two drives
        root = os.path.dirname(paths[0])
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return OUTPUTS / "dataset_scans" / f"{Path(root).name}-{digest}.json"


def _load_cache(path: Path) -> dict[str, Scan]:
    """Scans by key; nothing if the file is damaged or of another version."""
    cached = {}
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        content = json.loads(path.read_bytes())
        if content["version"] == SCAN_VERSION:
            for key, fields in content["pairs"].items():
                for name in ("values", "palette"):
                    fields[name] = {int(k): int(v) for k, v in fields[name].items()}
                numbers = fields.pop("numbers")
                cached[key] = Scan(**fields, numbers=numbers and tuple(map(int, numbers)))
    return cached


def pair_key(pair: Pair) -> str:
    """The pair's files, their sizes in bytes and their times of change; "" without the files."""
    with suppress(OSError):
        facts = [(os.path.abspath(path), path.stat()) for path in pair.files]
        key = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in facts]
        if isinstance(pair.mask, Annotation):  # its values depend on the labels of other files
            key.append(sorted(pair.mask.values.items()))
        return json.dumps(key)
    return ""


def _scan_pair(pair: Pair) -> Scan:
    try:
        image, mask, palette = read_stored(pair)
    except InputError as error:
        return Scan(problem=str(error), is_mismatch=isinstance(error, SizeMismatch))
    counts = count_values(value_codes(mask))
    frequent = sorted(counts, key=counts.get, reverse=True)[:KEPT_VALUES]
    values = {value: counts[value] for value in frequent}
    used = used_colours(mask, palette) if palette else {}
    kind, lossy = _kind_and_loss(pair.mask, mask)
    turned = ""
    if orientation(pair.image) != UPRIGHT:
        turned = "turned" if image.shape[:2] == upright_size(pair.image) else "raw"
    return Scan(
        values=values,
        dropped=sum(counts.values()) - sum(values.values()),
        palette={index: colour_code(colour) for index, colour in used.items()},
        kind=kind,
        digest=hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest(),
        turned=turned,
        lossy=lossy,
        spread=int(np.ptp(mask, axis=2).max(initial=0)) if mask.ndim == 3 else 0,
        enlarged=isinstance(pair.mask, Path) and mask.shape[:2] != upright_size(pair.mask),
        numbers=number_extremes(pair.image),
        frames=max(num_frames(path) for path in pair.files if is_picture(path)),
    )


def _kind_and_loss(source: Path | Annotation, mask: np.ndarray) -> tuple[str, bool]:
    """How a mask stores its values, and whether its compression changes them."""
    if isinstance(source, Annotation):
        return "shapes", False
    if is_array(source):
        return "array", False
    with Image.open(source) as header:
        mode, lossy = header.mode, header.format in LOSSY_FORMATS
        if header.format == "TIFF":
            lossy = header.info.get("compression") in LOSSY_IN_TIFF
        elif header.format == "WEBP":
            lossy = LOSSY_IN_WEBP in source.read_bytes()[:4096]
    if mask.ndim == 3:
        return ("RGB, all of it grey" if is_grey(mask) else "RGB"), lossy
    kinds = {"P": "palette", "1": "1-bit", "L": "8-bit", "LA": "8-bit", "RGBA": "alpha"}
    return kinds.get(mode, "16-bit"), lossy
