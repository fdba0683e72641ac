"""How a picture is shown to a model: its size, windows, scales and flips."""

from dataclasses import dataclass, replace

from config import DINOV2_INPUT, InputFormat
from data.transforms import Resize
from utils import InputError

NO_LIMIT = 99_999_999  # pixels of the long side, as in the published configs


@dataclass(frozen=True)
class ShortSide:
    """Resize the short side to `short` pixels, or the long side to `long` if that is smaller.

    Keeps proportions. Rounds as MMSegmentation's Resize, so that the published heads see the same
    pixels, then up to multiples of `multiple` pixels as its ResizeToMultiple.
    """

    short: int
    long: int = NO_LIMIT
    multiple: int = 1
    input_format: InputFormat = DINOV2_INPUT

    def content_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the resized picture of `size` (H, W)."""
        limits = (max(self.long, self.short), min(self.long, self.short))
        factor = min(limits[0] / max(size), limits[1] / min(size))
        sides = (max(1, int(side * factor + 0.5)) for side in size)
        height, width = (-(-side // self.multiple) * self.multiple for side in sides)
        return height, width


@dataclass(frozen=True)
class OwnSize:
    """Keep the picture's own resolution, times `ratio`."""

    ratio: float = 1.0
    input_format: InputFormat = DINOV2_INPUT

    def content_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the picture of `size` (H, W)."""
        height, width = (max(1, round(self.ratio * side)) for side in size)
        return height, width


@dataclass(frozen=True)
class Protocol:
    """How a picture is shown to a model: one pass per ratio, two with `flip`.

    The prediction is the mean of the passes' probabilities.

    resize: the picture's size at ratio 1. crop, stride: side and distance of square windows in
    pixels; None shows the whole picture at once. stretch: upsample a window's logits to the
    window's size although it was padded to whole patches, as the published heads were trained;
    otherwise cut the padding off.
    """

    resize: Resize | ShortSide | OwnSize
    crop: int | None = None
    stride: int | None = None
    ratios: tuple[float, ...] = (1.0,)
    flip: bool = False
    stretch: bool = False

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) that the model gets, of a window or of the whole resized picture."""
        return (self.crop, self.crop) if self.crop else self.resize.image_size

    def passes(self) -> list[tuple[Resize | ShortSide | OwnSize, bool]]:
        """(resize, flipped) of every pass."""
        flips = (False, True) if self.flip else (False,)
        return [(scaled(self.resize, ratio), flipped) for ratio in self.ratios for flipped in flips]

    def overridden(
        self,
        image_size: tuple[int, int] | None = None,
        mode: str | None = None,
        ratios: tuple[float, ...] | None = None,
        flip: bool | None = None,
    ) -> "Protocol":
        """A copy in which every argument that is not None replaces a setting.

        image_size: (H, W); with ShortSide the smaller of the two becomes the short side.
        mode: "whole" or "slide"; the windows' side is the short side, the stride two thirds of it.
        """
        changed = self
        if image_size and isinstance(self.resize, OwnSize):
            changed = self.with_windows(min(image_size))
        elif image_size and isinstance(self.resize, ShortSide):
            changed = replace(self, resize=replace(self.resize, short=min(image_size)))
        elif image_size:
            changed = replace(self, resize=replace(self.resize, image_size=image_size))
        if mode == "whole":
            changed = replace(changed, crop=None, stride=None)
        elif mode == "slide" and self.crop is None:
            resize = changed.resize
            short = resize.short if isinstance(resize, ShortSide) else min(resize.image_size)
            smaller = ShortSide(short, input_format=resize.input_format)
            changed = replace(changed, resize=smaller).with_windows(short)
        given = {"ratios": ratios, "flip": flip}
        return replace(changed, **{name: v for name, v in given.items() if v is not None})

    def with_windows(self, side: int) -> "Protocol":
        """A copy that shows square windows of `side` pixels; the stride is two thirds of it."""
        return replace(self, crop=side, stride=max(1, round(side * 2 / 3)))

    def tiled(self, side: int, overlap: int | None = None) -> "Protocol":
        """A copy that shows windows of `side` pixels at the picture's own resolution.

        overlap: pixels that neighbours share, a quarter of the side by default.
        """
        overlap = side // 4 if overlap is None else overlap
        if not 0 <= overlap < side:
            raise InputError(f"--tile-overlap {overlap}: give 0 to {side - 1}, less than --tile")
        resize = OwnSize(input_format=self.resize.input_format)
        return replace(self, resize=resize, crop=side, stride=side - overlap)


def scaled(resize: Resize | ShortSide | OwnSize, ratio: float) -> Resize | ShortSide | OwnSize:
    """The same resize with its target size multiplied by ratio."""
    if isinstance(resize, OwnSize):
        return replace(resize, ratio=resize.ratio * ratio)
    if isinstance(resize, ShortSide):
        return replace(resize, short=int(resize.short * ratio), long=int(resize.long * ratio))
    height, width = (max(1, round(side * ratio)) for side in resize.image_size)
    return replace(resize, image_size=(height, width))
