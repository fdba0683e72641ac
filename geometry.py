"""Where a picture lies in the network's input."""

from dataclasses import dataclass

from resampling import PATCH_SIZE


@dataclass(frozen=True)
class Resize:
    """How pictures come to the network's size: stretched to it, or whole in the middle of it.

    image_size: (H, W) of the input. keep_ratio: keep the picture's proportions and pad.
    """

    image_size: tuple[int, int]
    keep_ratio: bool = False

    def content_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) that a picture of `size` (H, W) takes up in the input."""
        if not self.keep_ratio:
            return self.image_size
        scale = min(n / m for n, m in zip(self.image_size, size, strict=True))
        return tuple(
            min(max(1, round(scale * m)), n) for n, m in zip(self.image_size, size, strict=True)
        )

    def padding(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) pixels around the content of a picture of `size` (H, W)."""
        sides = zip(self.image_size, self.content_size(size), strict=True)
        (top, bottom), (left, right) = (_centred(n, m) for n, m in sides)
        return top, bottom, left, right


def _centred(length: int, content: int) -> tuple[int, int]:
    """Pixels before and after the content.

    The model pads to whole patches; counted from its padded border the content lies in the middle,
    which is where `resampling.upsample` looks for it.
    """
    padded = -(-length // PATCH_SIZE) * PATCH_SIZE
    before = (padded - content) // 2 - (padded - length) // 2
    return before, length - content - before
