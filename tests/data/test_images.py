"""Pictures of every kind come out right."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from data.images import (
    UPRIGHT,
    list_images,
    num_frames,
    range_note,
    read_image,
    read_mask,
    upright_size,
    write_mask,
)
from data.images import orientation as orientation_of
from data.layouts import find_splits
from data.numbers import ValueRange
from data.pairs import read_pair
from data.survey import load_data
from results.overlays import IGNORED_COLOUR
from results.picture_files import find_pictures
from utils import InputError


def gradient(height=6, width=9):
    rows, cols = np.mgrid[:height, :width]
    return np.stack([rows * 20, cols * 20, rows + cols], axis=2).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_every_kind_of_pixels_becomes_rgb(tmp_path, mode):
    rgb = gradient()
    if mode in ("L", "LA", "P"):
        rgb = rgb[..., :1].repeat(3, axis=2)
    image = Image.fromarray(rgb).convert("L" if mode in ("LA", "P") else "RGB").convert(mode)
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif"), rgb)


GREY = np.linspace(0, 255, 96).round().astype(np.uint8)[None].repeat(64, 0)


def save_tiff(path, values, white_is_zero=False):
    """An uncompressed grey TIFF of any integer type, as scanners and rasters have them."""
    (h, w), bits, kind = values.shape, 8 * values.itemsize, 1 + (values.dtype.kind == "i")
    tags = [(256, w), (257, h), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 8),
            (277, 1), (278, h), (279, values.nbytes), (339, kind)]  # fmt: skip
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    head = b"II*\0" + struct.pack("<I", 8 + values.nbytes)
    path.write_bytes(head + values.tobytes() + struct.pack("<H", len(tags)) + ifd)


@pytest.mark.parametrize(
    ("values", "white_is_zero"),
    [
        (GREY.astype(np.int32), False),
        (GREY.astype(np.uint32), False),
        (GREY.astype(np.uint32) * 16843009, False),
        ((GREY.astype(np.int32) * 257 - 32768).astype(np.int16), False),
        (GREY.astype(np.int16) - 100, False),
        ((GREY.astype(np.int16) - 128).astype(np.int8), False),
        (GREY.astype(np.uint16) * 16, False),
        (GREY.astype(np.uint16) * 10 + 29000, False),
        (GREY.astype(np.uint16) * 257, False),
        (65535 - GREY.astype(np.uint16) * 257, True),
        (255 - GREY, True),
    ],
)
def test_wide_and_signed_numbers_go_from_black_to_white(tmp_path, values, white_is_zero):
    save_tiff(tmp_path / "a.tif", values, white_is_zero)
    seen = read_image(tmp_path / "a.tif")[..., 0].astype(int)
    assert np.abs(seen - GREY).max() <= 1


def test_hot_pixels_do_not_darken_a_picture_of_12_bits(tmp_path):
    values = GREY.astype(np.uint16) * 16
    values[5, 5] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png")[..., 0].astype(int) - GREY)[9:].max() <= 1


def test_what_became_black_and_white_is_told(tmp_path):
    path = tmp_path / "dark.png"
    Image.fromarray(GREY.astype(np.uint16) * 4).save(path)
    assert read_image(path).max() > 250
    assert "0 to 1023 became black to white" in range_note(path)
    assert range_note(path, ValueRange(0, 4095)) == ""
    assert "0 to 1020 are little of the 0 to 65535" in range_note(path, ValueRange(0, 65535))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_follow_the_same_rule(tmp_path, suffix, channels):
    values = np.dstack([GREY, GREY[::-1] // 2, GREY[:, ::-1]]).astype(np.uint16)
    alpha = np.full(GREY.shape, 65535, np.uint16)
    alpha[:9] = 0
    is_transparent = channels == 4 and suffix == ".png"  # OpenCV's TIFFs do not say alpha
    shown = np.where(alpha[..., None] == 0, 255, values) if is_transparent else values
    for factor in (16, 257):
        stored = np.dstack([values * factor, alpha])[..., [2, 1, 0, 3][:channels]]
        cv2.imwrite(str(tmp_path / f"a{suffix}"), stored)
        assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - shown).max() <= 1


def test_grey_of_16_bits_with_transparency(tmp_path):
    pixels = np.dstack([GREY.astype(np.uint16) * 16, np.full(GREY.shape, 65535)]).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", *GREY.shape[::-1], 16, 4, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.abs(read_image(tmp_path / "a.png")[..., 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "TIFF"])
def test_what_no_viewer_shows_is_not_read(tmp_path, mode):
    """Two pictures that look alike are alike, whatever colours lie below the transparency."""
    path = tmp_path / ("a.tif" if mode == "TIFF" else "a.png")
    seen = []
    for hidden in (0, 90):
        grey = np.full((4, 6), hidden, np.uint8)
        grey[:, :3] = 200
        alpha = np.where(grey == 200, 255, 0).astype(np.uint8)
        if mode == "P":
            image = Image.fromarray(grey, "P")
            image.putpalette([n for k in range(256) for n in (k, k, k)])
            image.save(path, transparency=hidden)
        else:
            bands = [grey, alpha] if mode == "LA" else [grey, grey, grey, alpha]
            Image.fromarray(np.dstack(bands)).save(path)
        seen.append(read_image(path)[..., 0])
    assert np.array_equal(*seen)
    assert seen[0][0].tolist() == [200] * 3 + [255] * 3


def stored_turned(upright, orientation):
    """The pixels of a file whose tag makes viewers show `upright`."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned.get(orientation, upright))


@pytest.mark.parametrize("kind", ["png", "tif", "tif of grey", "tif of 16 bits", "tif by LZW"])
@pytest.mark.parametrize("orientation", range(9))
def test_exif_orientation_is_obeyed(tmp_path, orientation, kind):
    """What a viewer shows is always the upright picture; 0 says nothing."""
    upright = gradient(60, 90)
    values = {"tif of grey": upright[..., 1], "tif of 16 bits": upright[..., 1] * np.uint16(257)}
    upright = np.dstack([upright[..., 1]] * 3) if kind in values else upright
    orientation = orientation or int(kind == "tif by LZW")  # its encoder refuses 0
    stored = stored_turned(values.get(kind, upright), orientation)
    path = tmp_path / f"turned.{kind[:3]}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if kind == "tif by LZW" else {}
    Image.fromarray(stored).save(path, exif=exif, **options)
    assert np.array_equal(read_image(path), upright)
    assert upright_size(path) == (60, 90)
    assert read_image(path, upright=False).shape[:2] == stored.shape[:2]
    assert np.array_equal(read_image(path, upright=False), stored_turned(upright, orientation))
    assert orientation_of(path) == (orientation or UPRIGHT)
    assert np.array_equal(read_mask(path)[0], values.get(kind, upright))


def chunk(kind, content):
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


EXIF_6 = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
XMP_6 = b'XML:com.adobe.xmp\0\0\0\0\0<rdf tiff:Orientation="6"/>'
PROFILE_6 = b"Raw profile type exif\0\nexif\n34\n" + (b"Exif\0\0" + EXIF_6).hex().encode()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("kind", "content"), [(b"eXIf", EXIF_6), (b"iTXt", XMP_6), (b"tEXt", PROFILE_6)]
)
def test_each_tag_of_a_png_turns_it(tmp_path, kind, content, last):
    """Tags may lie behind the pixels; both ways to learn the orientation agree."""
    path = tmp_path / "turned.png"
    Image.fromarray(gradient()).save(path)
    png = path.read_bytes()
    place = len(png) - 12 if last else 8 + 25  # before IEND, or after IHDR
    path.write_bytes(png[:place] + chunk(kind, content) + png[place:])
    assert orientation_of(path) == 6
    assert upright_size(path) == (9, 6) == read_image(path).shape[:2]


def test_the_orientation_of_a_png_is_found_without_its_pixels(tmp_path, monkeypatch):
    loaded = []
    load = PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda self: loaded.append(self) or load(self))
    text = PngInfo()
    text.add_text("Software", "painted")
    Image.fromarray(gradient()).save(tmp_path / "plain.png", pnginfo=text)
    assert orientation_of(tmp_path / "plain.png") == UPRIGHT
    assert upright_size(tmp_path / "plain.png") == (6, 9)
    assert not loaded


def test_a_damaged_orientation_leaves_the_picture_as_it_lies(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.webp"
    Image.fromarray(gradient()).save(path, exif=exif, lossless=True)
    assert read_image(path).shape == (9, 6, 3)
    data = bytearray(path.read_bytes())
    data[data.index(b"MM\0\x2a") + 3] ^= 0x10  # the magic number of the tags
    path.write_bytes(data)
    assert np.array_equal(read_image(path), gradient())


def test_masks_give_indices_not_colours(tmp_path):
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    write_mask(tmp_path / "mask.png", labels, [(0, 0, 0), (255, 0, 0), (0, 255, 0)])
    assert np.array_equal(read_mask(tmp_path / "mask.png")[0], labels)
    shown = np.asarray(Image.open(tmp_path / "mask.png").convert("RGB"))
    assert shown[0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0], list(IGNORED_COLOUR)]


def test_one_bit_masks(tmp_path):
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png")[0].tolist() == [[1, 0, 1]]


def test_masks_of_floating_point_hold_whole_numbers_or_are_refused(tmp_path):
    path = tmp_path / "mask.tif"
    np.save(tmp_path / "x.npy", np.array([[0, 1, -9999]], np.float64))
    assert read_mask(tmp_path / "x.npy")[0].tolist() == [[0, 1, -9999]]
    Image.fromarray(np.array([[0, 1, -9999]], np.float32)).save(path)
    assert read_mask(path)[0].tolist() == [[0, 1, -9999]]
    for value in (0.9, np.nan):
        Image.fromarray(np.array([[0, value]], np.float32)).save(path)
        with pytest.raises(InputError, match=f"floating-point mask with values such as {value}"):
            read_mask(path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken.png: not a readable picture"):
        read_image(path)
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "gone.png")


def test_one_rule_for_what_a_picture_is(tmp_path, monkeypatch):
    """Training and inference list the same files; links are followed once, loops end."""
    hidden = ".ipynb_checkpoints/a.jpg", "@eaDir/a.jpg", "__MACOSX/a.jpg"
    for name in ("a.jpg", *hidden, "dir.jpg/b"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.AVIF").write_bytes(b"")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "link2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    found = [p.relative_to(tmp_path / "in").as_posix() for p in list_images(tmp_path / "in")]
    assert found in (["a.jpg", "link/c.AVIF"], ["a.jpg", "link2/c.AVIF"])
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in find_pictures(["in"])] == ["a.jpg", "c.AVIF"]
    assert [path.name for path in find_pictures(["in/*.jpg"])] == ["a.jpg"]


def test_what_pillow_cannot_read_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.heic: HEIC cannot be read; save it as JPEG or PNG"):
        read_image(tmp_path / "a.heic")
    assert 2 * Image.MAX_IMAGE_PIXELS == 500_000_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("L", (6, 6)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="more than 0 megapixels; cut it into tiles"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4, 4)])
def test_masks_of_16_bit_colours_are_refused(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "deep.png"), np.ones(shape, np.uint16))
    with pytest.raises(InputError, match=r"deep\.png: colours of 16 bits"):
        read_mask(tmp_path / "deep.png")


def test_of_an_animated_picture_the_first_frame(tmp_path):
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert num_frames(tmp_path / "moving.gif") == 2
    assert read_image(tmp_path / "moving.gif")[3, 4].tolist() == pytest.approx([250, 0, 0], abs=5)
    # A phone's photograph with its depth or brightness: nothing is left out that people would miss.
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    assert num_frames(tmp_path / "phone.jpg") == 1
    assert read_image(tmp_path / "phone.jpg")[3, 4].tolist() == pytest.approx([250, 0, 0], abs=5)


def test_a_data_set_has_one_range_that_is_told(tmp_path, in_tmp, monkeypatch):
    for k, factor in enumerate((4, 16, 16)):
        for folder, values in (("images", GREY.astype(np.int16) * factor - 1000), ("masks", GREY)):
            (tmp_path / "d" / folder).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(k).integers(0, 2, GREY.shape, values.dtype)
            values = values + noise if folder == "images" else (values > 99).astype(np.uint8)
            save_tiff(tmp_path / "d" / folder / f"{k}.tif", values)
    for _ in range(2):  # from files, then from the cache
        data = load_data(find_splits(tmp_path / "d"))
        said = f"3 images have more than 8 bits or a sign; their numbers {data.value_range}"
        assert said in str(data)
        by_name = {pair.image.name: pair for pair in data.splits.pairs}
        dark, bright = (read_pair(by_name[f"{k}.tif"], data.encoding)[0] for k in (0, 1))
        assert np.abs(dark[..., 0] * 4.0 - bright[..., 0]).max() <= 4
        assert bright.max() > 250
        monkeypatch.setattr("data.scans.number_extremes", None)
