"""Turn decoded frames into RGB pictures: upright, of one size, in the colours of a usual screen."""

import av
import cv2
import numpy as np

BT709, BT601, UNSPECIFIED, BT2020 = 1, 6, 2, 9  # FFmpeg's numbers of a matrix, its primaries, curve
PQ, HLG = 16, 18  # FFmpeg's numbers of the curves of HDR films
# swscale's bilinear, full chroma and exact rounding; without them it darkens by 2 levels.
EXACT = 0x2 | 0x2000 | 0x40000
PAPER = 203.0  # cd/m2 of white paper in an HDR film (ITU-R BT.2408)
KNEE = 0.85  # of paper white; brighter parts are compressed
TABLE, BRIGHTEST = 2**14, 7.1  # entries; root of 10 000 cd/m2 by PAPER
TO_BT709 = np.array(  # linear light of BT.2020's primaries to those of BT.709 (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)


class ToRGB:
    """Converts frames to pictures (H, W, 3) uint8 of the size of the first one.

    Attributes:
        width, height: pixels of the upright pictures.
        pixel_aspect: width / height of one pixel, None if unknown.
        sizes: (width, height) of stored frames that were met, upright.
    """

    def __init__(self, frame: av.VideoFrame, stream: av.VideoStream):
        matrix = frame.side_data.get("DISPLAYMATRIX")
        # The pixel (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist() if matrix else (1, 0, 0, 0, 1)
        self._transposed = abs(b) > abs(a)
        flip_x, flip_y = (c < 0, b < 0) if self._transposed else (a < 0, d < 0)
        self._flips = np.s_[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        self._coded_size = frame.width, frame.height
        self.width, self.height = self._upright(self._coded_size)
        self._stream, self._aspect = stream, stream.sample_aspect_ratio or None
        self.pixel_aspect = 1 / self._aspect if self._aspect and self._transposed else self._aspect
        self.sizes = {(self.width, self.height)}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        size = frame.width, frame.height
        self.sizes.add(self._upright(size))
        if size == self._coded_size:
            image = _rgb(frame, *size)
        else:  # fitted into the first size, with black around it
            width, height = self._fitted(*size)
            image = np.zeros((*self._coded_size[::-1], 3), np.uint8)
            left, top = (self._coded_size[0] - width) // 2, (self._coded_size[1] - height) // 2
            image[top : top + height, left : left + width] = _rgb(frame, width, height)
        if self._transposed:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[self._flips])

    def _upright(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[::-1] if self._transposed else size

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """The size of a frame of another size that keeps its proportions as they are shown."""
        aspect = self._stream.codec_context.sample_aspect_ratio or 1
        wide = width * aspect / (self._aspect or 1)
        ratio = min(self._coded_size[0] / wide, self._coded_size[1] / height)
        return max(1, round(wide * ratio)), max(1, round(height * ratio))


def usual_matrix(height: int) -> int:
    """The colour matrix that players assume for untagged video of this height in pixels."""
    return BT709 if height >= 720 else BT601


def _rgb(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    is_hdr = frame.color_trc in (PQ, HLG)
    untagged = BT2020 if is_hdr else usual_matrix(frame.height)
    image = frame.to_ndarray(
        format="rgb48le" if is_hdr else "rgb24",
        width=width,
        height=height,
        src_colorspace=untagged if frame.colorspace == UNSPECIFIED else int(frame.colorspace),
        dst_colorspace="DEFAULT",
        interpolation=EXACT,
    )
    return from_hdr(image, frame.color_trc) if is_hdr else image


def from_hdr(image: np.ndarray, curve: int) -> np.ndarray:
    """uint16 RGB (H, W, 3) of an HDR film as sRGB uint8; what is brighter than paper is compressed.

    Sources: ITU-R BT.2100 (curves), BT.2408 (level of paper), IEC 61966-2-1 (sRGB).
    """
    light = cv2.transform(LIGHT[curve][image], TO_BT709)
    places = np.sqrt(light.clip(0, BRIGHTEST**2)) * ((TABLE - 1) / BRIGHTEST)
    return SRGB[places.astype(np.uint16)]


def _light_of_pq(signal: np.ndarray) -> np.ndarray:
    power = signal ** (32 / 2523)
    ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
    return 10_000 / PAPER * ratio ** (16384 / 2610)


def _light_of_hlg(signal: np.ndarray) -> np.ndarray:
    """Of the scene: its paper, at 75 % of the signal, is 1."""
    bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(signal <= 0.5, signal**2 / 3, bright) / 0.265


def _srgb_table() -> np.ndarray:
    light = np.linspace(0, BRIGHTEST, TABLE) ** 2
    over = np.maximum(light - KNEE, 0) / (1 - KNEE)
    light = np.minimum(light, KNEE) + (1 - KNEE) * (1 - np.exp(-over))
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * curved).round().astype(np.uint8)


_SIGNAL = np.arange(2**16) / (2**16 - 1)
LIGHT = {
    PQ: _light_of_pq(_SIGNAL).astype(np.float32),
    HLG: _light_of_hlg(_SIGNAL).astype(np.float32),
}
SRGB = _srgb_table()
