"""VGG VIA's JSON and CVAT's XML, as people have them."""

import numpy as np
import pytest
from helpers.annotations import BOX, HEIGHT, STAR, WIDTH, refused, save_image, targets, write


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def via_polygon(points):
    x, y = zip(*points, strict=True)
    return {"name": "polygon", "all_points_x": x, "all_points_y": y}


def via(pictures, numbered=False):
    """{name: regions} as VIA 2 exports it; numbered: the regions as in VIA 1."""
    return {
        f"{name}12": {
            "filename": name, "size": 12, "file_attributes": {},
            "regions": {str(k): r for k, r in enumerate(regions)} if numbered else regions,
        }
        for name, regions in pictures.items()
    }  # fmt: skip


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("project", [False, True])
def test_via(tmp_path, in_tmp, numbered, project):
    """Every shape, later ones on top; ticked boxes are names; a picture without regions."""
    rect = {"name": "rect", "x": 60, "y": 4, "width": 10, "height": 6}
    disc = {"name": "circle", "cx": 65.5, "cy": 45.5, "r": 8}
    flat = {"name": "ellipse", "cx": 20, "cy": 30, "rx": 9, "ry": 3, "theta": np.pi / 2}
    regions = [region(via_polygon(STAR), kind="cat"), region(rect, kind={"dog": True, "x": False}),
               region(disc, kind="dog"), region({"name": "point", "cx": 1, "cy": 2}, kind="cat"),
               region(flat, kind="dog")]  # fmt: skip
    for split, content in (
        ("train", via({"a.jpg": regions}, numbered)),
        ("val", via({"b.jpg": []})),
    ):
        name = next(iter(content.values()))["filename"]
        save_image(tmp_path / split / name, len(split))
        whole = {"_via_settings": {}, "_via_img_metadata": content} if project else content
        write(tmp_path / split / "via_region_data.json", whole)
    found, data = targets(tmp_path)
    ids = found["a.jpg"]
    assert data.classes.names == ("background", "cat", "dog")
    assert [len(data.splits.pairs_of(s)) for s in ("train", "valid")] == [1, 1]
    assert (ids[4:10, 60:70] == 2).all()
    assert (ids[:14, 56:] == 2).sum() == 60
    assert (ids[36:55, 56:] == 2).sum() == pytest.approx(np.pi * 64, rel=0.05)
    assert (ids[23:37, 18:22] == 2).all()
    assert (ids == 1).sum() > 500
    assert not found["b.jpg"].any()
    assert "1 regions of the shape point are left out" in str(data)
    assert "1 pictures have no region, so that all is background" in str(data)


def draw_via(root, *attributes):
    """A picture for each of the given attributes of its one region."""
    for k in range(len(attributes)):
        save_image(root / f"{k}.jpg", k)
    pictures = {f"{k}.jpg": [region(via_polygon(BOX), **a)] for k, a in enumerate(attributes)}
    write(root / "via.json", via(pictures))


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ([{}] * 3, ("object",)),
        ([{"inseto": "kudzu", "insect": "kudzu", "note": ""}] * 3, ("kudzu",)),
        ([{"kind": k, "id": str(n)} for n, k in enumerate("aabb")], ("a", "b")),
        ([{"kind": k} for k in "abc"], ("a", "b", "c")),
        ([{"name": f"{k} ", "type": k, **more} for k in "aabb"
          for more in ({}, {"image_quality": {"good": True}})], ("a", "b")),
    ],
)  # fmt: skip
def test_the_class_is_the_attribute_of_few_texts(tmp_path, in_tmp, attributes, names):
    draw_via(tmp_path, *attributes)
    _, data = targets(tmp_path)
    assert data.classes.names == ("background", *names)


def test_two_attributes_that_could_be_the_class_are_asked_about(tmp_path, in_tmp):
    """The file that the message asks for decides, copied as it stands there."""
    draw_via(tmp_path, *({"kind": k, "ripe": r} for k, r in zip("aabb", "ynyn", strict=True)))
    said = refused(tmp_path, "2 attributes that could be the class")
    assert "kind: a, b; ripe: n, y" in said
    write(tmp_path / "dataset.yaml", said.split("`")[1])
    assert targets(tmp_path)[1].classes.names == ("background", "a", "b")


def test_a_region_without_its_class_is_a_problem(tmp_path, in_tmp):
    draw_via(tmp_path, {"kind": "a"}, {"kind": "a"}, {"kind": ""})
    refused(tmp_path, r"via.json: 2.jpg: region 1: has no kind")


def test_files_without_any_class_have_the_only_one_of_the_others(tmp_path, in_tmp):
    for split, attributes in (("train", {"kind": "a"}), ("val", {})):
        pictures = {f"{split}.jpg": [region(via_polygon(BOX), **attributes)]}
        save_image(tmp_path / split / f"{split}.jpg", len(split))
        write(tmp_path / split / "via_region_data.json", via(pictures))
    found, data = targets(tmp_path)
    assert [(target == 1).sum() for target in found.values()] == [found["train.jpg"].sum()] * 2
    assert "1 pictures are of files without a class, taken for a" in str(data)


def test_two_files_may_annotate_a_picture_alike(tmp_path, in_tmp):
    draw_via(tmp_path, {"kind": "a"}, {"kind": "a"})
    content = (tmp_path / "via.json").read_text()
    write(tmp_path / "via(1).json", content)
    assert "2 pictures are annotated alike in two files, first: " in str(targets(tmp_path)[1])
    write(tmp_path / "via(1).json", content.replace('"a"', '"b"', 1))
    refused(tmp_path, r"annotates 0\.jpg, which .* annotates in another way")


def image_xml(name, *shapes, subset="", size=(HEIGHT, WIDTH)):
    body = "".join(shapes)
    subset = f'subset="{subset}"' if subset else ""
    return (
        f'<image id="0" name="{name}" {subset} height="{size[0]}" width="{size[1]}">{body}</image>'
    )


def element(kind, label="cat", **attributes):
    shown = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<{kind} label="{label}" {shown}></{kind}>'


def points(ring):
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)


def annotations(*images):
    return (
        f"<?xml version='1.0'?><annotations><version>1.1</version>{''.join(images)}</annotations>"
    )


def test_cvat(tmp_path, in_tmp):
    """z_order goes before the order of the file; subsets are splits; masks run along rows."""
    runs = [3, 2, 5, 10]  # of a box of 4 rows and 5 columns
    box = np.repeat([False, True, False, True], runs).reshape(4, 5)
    shapes = [
        element("polygon", "dog", points=points(BOX), z_order=1),
        element("polygon", points=points(STAR), z_order=0),
        element("box", "dog", xtl=60, ytl=4, xbr=70, ybr=10),
        element("box", "ant", xtl=2, ytl=50, xbr=12, ybr=54, rotation=90),
        element("ellipse", "ant", cx=65, cy=45, rx=10, ry=4),
        element("mask", "ant", rle="3, 2, 5, 10", left=40, top=50, width=5, height=4),
        element("polyline", points="0,30;6,30"), element("points", points="1,1"), element("tag"),
    ]  # fmt: skip
    for k, name in enumerate(("a", "b", "c")):
        save_image(tmp_path / "images" / f"{name}.jpg", k)
    images = [image_xml("a.jpg", *shapes, subset="Train"), image_xml("b.jpg", subset="Validation"),
              image_xml("c.jpg", subset="Test")]  # fmt: skip
    write(tmp_path / "annotations.xml", annotations(*images))
    found, data = targets(tmp_path)
    ids = found["a.jpg"]
    assert data.classes.names == ("background", "ant", "cat", "dog")
    assert [len(data.splits.pairs_of(s)) for s in ("train", "valid", "test")] == [1, 1, 1]
    assert (ids[21:28, 21:30] == 3).all()
    assert (ids[:15, 56:] == 3).sum() == 60
    assert (ids[47:57, 5:9] == 1).all()
    assert np.array_equal(ids[50:54, 40:45] == 1, box)
    assert (ids[40:50, 54:76] == 1).sum() == pytest.approx(np.pi * 40, rel=0.05)
    assert ids[30, 3] == 2
    for words in (
        "1 shapes of the kind polyline are drawn as lines of 10 pixels",
        "2 shapes of the kind box are drawn as filled rectangles",
        "1 shapes of the kind points are left out",
        "1 shapes of the kind tag are left out",
    ):
        assert words in str(data)


ENTITIES = "".join(f"<!ENTITY e{k + 1} '{10 * f'&e{k};'}'>" for k in range(9))
EXPANDING = f"<!DOCTYPE x [<!ENTITY e0 'a'>{ENTITIES}]><annotations>&e9;</annotations>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXPANDING, "not a readable XML file"),
        (annotations(image_xml("a.jpg"))[:-9], "not a readable XML file"),
        (annotations(image_xml("gone.jpg")), r"image 0: its picture gone\.jpg is not below"),
        (annotations(image_xml("a.jpg", element("polygon", points="1,1;2,2"))), "2 points; a po"),
        (annotations(image_xml("a.jpg", element("mask", rle=9, left=0, top=0, width=1, height=4))),
         r"shape 1 \(mask\): its runs cover 9 pixels, its box has 4"),
        (annotations(image_xml("a.jpg", element("box", xtl=1, ytl=1, xbr="x", ybr=5))), "convert"),
        (annotations(image_xml("a.jpg", element("polygon", points=points(STAR)), size=(9, 9)),
                     image_xml("b.jpg")),
         "the file gives 9x9 pixels|is outside the picture of 9x9"),
    ],
)  # fmt: skip
def test_faults_of_a_cvat_file_are_told(tmp_path, in_tmp, text, words):
    for name in "ab":
        save_image(tmp_path / f"{name}.jpg", ord(name))
    write(tmp_path / "annotations.xml", text)
    said = refused(tmp_path, words)
    assert "annotations.xml" in said
