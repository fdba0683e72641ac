"""Class files in each of their forms, and what they make of mask values."""

import json

import pytest
import yaml

from data.labels.class_files import find_class_file, read_classes
from data.labels.classes import VOC_PALETTE
from utils import InputError


def written(tmp_path, name, content):
    path = tmp_path / name
    if not isinstance(content, str):
        content = json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content)
    path.write_text(content, encoding="utf-8")
    return path


def read(tmp_path, name, content):
    return read_classes(written(tmp_path, name, content))


ROADS = ["background", "road", "person"]
COLOURS = [[0, 0, 0], [128, 64, 128], [220, 20, 60]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", {"ALL_CLASSES": ROADS}),
        ("a.yaml", {"names": ROADS}),
        ("a.yaml", {"names": dict(enumerate(ROADS))}),
        ("a.yaml", {"classes": {0: "background", 1: {"name": "road"}, 2: "person"}}),
        ("a.json", {"id2label": {str(k): name for k, name in enumerate(ROADS)}}),
        ("a.json", {"model_type": "x", "id2label": {"0": "background", "1": "road", "2": "person"},
                    "label2id": {"background": 0, "road": 1, "person": 2}}),
        ("a.json", {str(k): name for k, name in reversed(list(enumerate(ROADS)))}),
        ("a.json", ROADS),
        ("a.json", {"names": ROADS}),
        ("classes.txt", "background\nroad\n\n# a comment\n person \n"),
        ("classes.txt", "\ufeffbackground\r\nroad\r\nperson"),
    ],
)  # fmt: skip
def test_names_alone(tmp_path, name, content):
    found = read(tmp_path, name, content)
    assert found.classes.names == tuple(ROADS)
    assert len(set(found.classes.palette)) == 3
    assert (found.values, found.colours, found.others) == ({}, {}, None)


def test_a_labelmap_without_colours_has_those_of_voc(tmp_path):
    found = read(tmp_path, "labelmap.txt", "background:::\nroad:::\n")
    assert found.colours == {c: k for k, c in enumerate(VOC_PALETTE[:2])}


@pytest.mark.parametrize(
    ("text", "names", "values", "colours", "others"),
    [
        ("ALL_CLASSES: [ground, road]\nLABEL_COLORS_LIST: [[0, 0, 0], [128, 64, 128]]",
         ("ground", "road"), {}, {(0, 0, 0): 0, (128, 64, 128): 1}, None),
        ("classes: {0: {name: ground, labels: [0, 2]}, 1: {name: person, labels: [1, 7]}}\n"
         "ignore: [9]",
         ("ground", "person"), {0: 0, 2: 0, 1: 1, 7: 1, 9: 255}, {}, None),
        ("classes: {0: {name: ground, labels: others}, 1: {name: person, labels: [15]}}",
         ("ground", "person"), {15: 1}, {}, 0),
        ("classes: {0: {name: road, labels: 3}, 1: {name: person, labels: [15]}}\nignore: others",
         ("road", "person"), {3: 0, 15: 1}, {}, 255),
        ("classes:\n  0: {name: ground, labels: [[0, 0, 0], [10, 10, 10]]}\n"
         "  1: {name: tree, labels: [[0, 200, 0]]}\n"
         "ignore: [[255, 255, 255]]\nignore_colors: [[1, 1, 1]]",
         ("ground", "tree"), {},
         {(0, 0, 0): 0, (10, 10, 10): 0, (0, 200, 0): 1, (255,) * 3: 255, (1, 1, 1): 255}, None),
        ("names: [sky, road, person, car]\nignore_classes: [road]",
         ("sky", "person", "car"), {0: 0, 1: 255, 2: 1, 3: 2}, {}, None),
        ("classes: {3: road, 7: person, 9: void}\nignore_classes: [9]\n"
         "LABEL_COLORS_LIST: [[0, 0, 0], [128, 64, 128], [220, 20, 60]]",
         ("road", "person"), {3: 0, 7: 1, 9: 255},
         {(0, 0, 0): 0, (128, 64, 128): 1, (220, 20, 60): 255}, None),
        ("names: [a, b]\nzero_is: ignore", ("a", "b"), {0: 255, 1: 0, 2: 1}, {}, None),
        ("names: [void, a, b]\nignore: 0", ("a", "b"), {0: 255, 1: 0, 2: 1}, {}, None),
        ("names: [void, a, b]\nignore: [0]", ("a", "b"), {0: 255, 1: 0, 2: 1}, {}, None),
        ("names: [void, a, b]\nignore_classes: void", ("a", "b"), {0: 255, 1: 0, 2: 1}, {}, None),
        ("names: [void, a, b]\nignore_classes: 0", ("a", "b"), {0: 255, 1: 0, 2: 1}, {}, None),
    ],
)  # fmt: skip
def test_what_mask_values_become(tmp_path, text, names, values, colours, others):
    found = read(tmp_path, "dataset.yaml", text)
    assert found.classes.names == names
    assert (found.values, found.colours, found.others) == (values, colours, others)


def test_colours_to_draw(tmp_path):
    """Colours to draw are none of the masks; classes that are left out lose theirs."""
    content = {"classes": {0: "ground", 1: {"name": "person", "color": [220, 20, 60]}}}
    found = read(tmp_path, "dataset.yaml", content)
    assert found.classes.palette[1] == (220, 20, 60)
    assert found.colours == {}
    content = {"names": ROADS, "LABEL_COLORS_LIST": COLOURS, "ignore_classes": "road"}
    assert read(tmp_path, "dataset.yaml", content).classes.palette == ((0, 0, 0), (220, 20, 60))
    content["VIS_LABEL_MAP"] = [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert read(tmp_path, "dataset.yaml", content).classes.palette == ((0, 0, 0), (4, 5, 6))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"ALL_CLASES": ROADS}, "unknown key ALL_CLASES; known: ALL_CLASSES"),
        ({"names": ROADS, "ALL_CLASSES": ROADS}, "exactly one of"),
        ({"names": []}, "exactly one of ALL_CLASSES, classes"),
        ({"names": ["background"]}, "1 classes; expected 2 to 254"),
        ({"names": [str(k) for k in range(255)]}, "255 classes; expected 2 to 254"),
        ({"names": ROADS, "LABEL_COLORS_LIST": COLOURS[:2]}, "3 classes but 2 colours"),
        ({"names": ROADS, "LABEL_COLORS_LIST": [[0, 0, 0]] * 3}, "belongs to background and to ro"),
        ({"names": ROADS, "VIS_LABEL_MAP": [[0, 0, 256]] * 3}, "is not a colour"),
        ({"classes": {0: {"name": "a", "labels": [1]}, 1: {"name": "b", "labels": [1]}}},
         "mask value 1 belongs to a and to b"),
        ({"classes": {0: {"label": "a"}, 1: "b"}}, "class 0 must have the key name"),
        ({"classes": {0: {"name": "a", "labels": "others"}, 1: "b"}, "ignore": "others"},
         "mask value others belongs to ignore and to a"),
        ({"names": ROADS, "zero_is": "void"}, "expected background or ignore"),
        ({"names": ROADS, "instances": True}, "needs two classes, found 3"),
        ("just text", "expected keys such as"),
        ({"names": ROADS, "ignore_classes": ["Road"]}, "'Road' is to be ignored, but is no class"),
        ({"names": ["a", "a", "b"]}, "two classes have the name a"),
        ("names: [yes, no, null]", "class name True is not text; write it in quotes"),
        ({"id2label": {"0": "x", "00": "a", "1": "b"}}, "mask value 0 belongs to x and to a"),
        ({"classes": {0: {"name": "a", "labels": [2.7]}, 1: "b"}}, "value 2.7 is not a whole num"),
        ({"names": ROADS[:2], "instances": "no"}, "instances: 'no'; expected false or true"),
        ({"names": ROADS, "zero_is": "ignore", "ignore": [9]}, "zero_is: ignore and ignore both"),
        ({"names": ROADS[:2], "instances": True, "zero_is": "ignore"}, "ignore and instances: tr"),
        ({"names": ROADS[:2], "instances": True, "ignore": 7}, "instances: true and ignore both"),
        ({"classes": {0: "a", 1: {"name": "b", "labels": [4]}}, "zero_is": "ignore"},
         r"zero_is: ignore and labels \(of b\) both"),
        ({"classes": {0: "a", 1: {"name": "b", "labels": [4]}}, "instances": True},
         r"instances: true and labels \(of b\) both"),
        ({"classes": {0: "a", 1: {"name": "b", "labels": [4]}}, "ignore": [4]},
         "mask value 4 belongs to ignore and to b"),
        ({"names": ROADS, "LABEL_COLORS_LIST": COLOURS, "ignore_colors": [COLOURS[1]]},
         "belongs to ignore and to road"),
        ("a: " + 600 * "[", "not a readable class file"),
        ("{" + 1500 * '"a": {', "not a readable"),
        ("a: [", "not a readable class file"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, content, words):
    is_json = isinstance(content, str) and content.startswith("{")
    name = "classes.json" if is_json else "dataset.yaml"
    with pytest.raises(InputError, match=words) as error:
        read(tmp_path, name, content)
    assert name in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nroad, 128,64,128\nperson,220,20,60\n"),
        ("class_dict.csv", "name;r;g;b\nbackground;0;0;0\nroad; 128;64;128\nperson;220;20;60\n"),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, road\n2, person\n"),
        ("class.txt", "0: background\n1: road\n2: person\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
                         "road:128,64,128::\nperson:220,20,60:head,hand:walk\n"),
        ("classes.txt", "background 0 0 0\nroad 128 64 128\nperson 220 20 60\n"),
        ("classes.txt", "0 background 0,0,0\n1 road 128,64,128\n2 person (220,20,60)\n"),
        ("label_colors.txt", "0 0 0\tbackground\n128 64 128\t\troad\n220 20 60\tperson\n"),
        ("class_dict_seg.csv", "name, r, g, b\nbackground, 0,0,0\nroad, 128,64,128\n"
                               "person, 220,20,60\n"),
        ("classes.json", '[{"title": "background", "color": "#000000", "shape": "polygon"}, '
         '{"title": "road", "color": "#804080"}, {"title": "person", "color": "#DC143C"}]'),
    ],
)  # fmt: skip
def test_tables_of_names_and_colours(tmp_path, name, text):
    found = read(tmp_path, name, text)
    assert found.classes.names == tuple(ROADS)
    colours = {tuple(c): k for k, c in enumerate(COLOURS)} if "128" in text or "#" in text else {}
    assert found.colours == colours
    assert not colours or found.classes.palette == tuple(colours)
    assert find_class_file(tmp_path) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nroad,1\nperson,2,3,4\n"),
        ("class_dict.csv", "a,b\n1,2\n"),
        ("_classes.csv", "Pixel Value,Class\n0\n1,person\n"),
    ],
)
def test_a_table_of_something_else_or_cut_is_refused(tmp_path, name, text):
    with pytest.raises(InputError, match="not a readable class file"):
        read(tmp_path, name, text)


def test_a_missing_file_names_the_presets():
    with pytest.raises(InputError, match=r"no such class file, and no preset \(person, voc2012"):
        read_classes("nowhere.yaml")


def test_class_names_are_trimmed_and_composed(tmp_path):
    path = tmp_path / "dataset.yaml"
    path.write_text("names: [' road ', \"e\u0301\"]", encoding="utf-8")
    assert read_classes(path).classes.names == ("road", "\u00e9")
    for text, words in (("names: [a, ' ']", "a class name is empty"),
                        ("names: [\u00e9, \"e\u0301\"]", "two classes have the name")):  # fmt: skip
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=words):
            read_classes(path)
    path.write_text("names: [a, b]", encoding="utf-16")
    with pytest.raises(InputError, match="not UTF-8 text; save it with the encoding UTF-8"):
        read_classes(path)


def test_files_are_found_in_their_order(tmp_path):
    (tmp_path / "list.txt").write_text("a_1 1 1 1\na_2 1 1 1\n")  # pictures and their kinds
    assert find_class_file(tmp_path) is None
    for name in ("classes.txt", "labelmap.txt", "classes.json", "dataset.yaml"):
        (tmp_path / name).touch()
        assert find_class_file(tmp_path) == tmp_path / name
