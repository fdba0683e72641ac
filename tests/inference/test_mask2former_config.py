"""The config published with Mask2Former, read as data: what it says, and what it must not do."""

import ast
from dataclasses import replace

import pytest
from helpers.small_mask2former import CONFIG, TINY, written

from inference.protocol import Protocol, ShortSide
from inference.published_mask2former import PROTOCOL, _assignments, read_config
from utils import InputError


def test_settings_are_read_from_a_config(tmp_path):
    config, protocol, missing = read_config(written(tmp_path, CONFIG), TINY, PROTOCOL)
    assert config == replace(
        TINY, num_heads=8, n_points=4, deform_num_heads=1, gn_groups=4, pixel_heads=2,
        pixel_points=4, decoder_heads=2, interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]],
    )  # fmt: skip
    assert protocol == Protocol(ShortSide(96, 400, 32), 64, 48, stretch=True)
    assert missing == []
    many = CONFIG.replace("flip=False", "flip=True, img_ratios=[0.5, 1.0]")
    many = many.replace("dict(type='ResizeToMultiple', size_divisor=32),", "")
    protocol = read_config(written(tmp_path, many), TINY, PROTOCOL)[1]
    assert protocol == Protocol(ShortSide(96, 400), 64, 48, (0.5, 1.0), flip=True, stretch=True)


def test_what_a_config_does_not_say_stays_and_is_told(tmp_path):
    text = "model = dict(backbone=dict(num_heads=8), test_cfg=dict(mode='whole'))\nx: int = 3"
    config, protocol, missing = read_config(written(tmp_path, text), TINY, PROTOCOL)
    assert config == replace(TINY, num_heads=8)
    assert protocol == replace(PROTOCOL, crop=None, stride=None)
    assert {"decoder_heads", "pixel_points", "interaction_indexes", "scales"} <= set(missing)
    assert not {"num_heads", "windows"} & set(missing)


def test_a_config_is_data_and_never_run(tmp_path, in_tmp):
    hostile = """
__import__('os').system('touch owned')
a = __import__('os').system('touch owned')
dict = lambda **words: __import__('os').system('touch owned')
b = dict(c=open('owned', 'w'), d=[1, -2.5, (3, 'x')], **{'e': 1})
f = [exec("open('owned', 'w')") for _ in (1,)]
g = f'{open("owned", "w")}'
h = b
class i:
    open('owned', 'w')
"""
    names = _assignments(ast.parse(hostile))
    assert not (in_tmp / "owned").exists()
    assert names["a"] is names["f"] is names["g"] is None
    assert names["h"] == {"c": None, "d": [1, -2.5, [3, "x"]]}


@pytest.mark.parametrize("change", [
    ("img_scale=(400, 96), ", ""), ("img_scale=(400, 96)", "img_scale=('a', 96)"),
    ("model = dict(", "<html>"), ("# A comment.", "\0"),
])  # fmt: skip
def test_another_file_is_refused_in_one_line(tmp_path, change):
    assert change[0] in CONFIG
    with pytest.raises(InputError, match=r"_config\.py: not the config of") as error:
        read_config(written(tmp_path, CONFIG.replace(*change)), TINY, PROTOCOL)
    assert "\n" not in str(error.value)
