"""The commands, examples and links of the README and docs: parsed, and run where they can be."""

import importlib
import json
import re
import shlex
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from helpers.basics import REPO, draw_data_set, draw_pair, save_pictures
from helpers.videos import grey_frames, make_video
from PIL import Image

PAGES = [REPO / "README.md", REPO / "input" / "README.md", *sorted((REPO / "docs").glob("*.md"))]
SCRIPTS = {path.stem for path in REPO.glob("*.py")}
# What a run needs that is not here, or what other tests run.
ELSEWHERE = (
    "VOC2012 webssl dinov2_vits14 dinov2_vitb14 dinov2_vitl14 --hub-repo --download "
    "--list-models demo torchrun dinov3 timm/ --split input/aerial "
    "input/street input/demo NAME DIR"
).split()
SMALL = {
    "train": "--backbone dinov2_vitt14 --weights none --imgsz 28 --epochs 1 --batch 2 --workers 0",
    "infer_image": "--imgsz 28 --device cpu",
    "infer_video": "--imgsz 28 --device cpu",
    "export": "--imgsz 28",
    "model": "--imgsz 28 --backbone dinov2_vitt14",
}


def commands() -> list[tuple[str, str, list[str]]]:
    """(page, script, arguments) of each command of a script, in order."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`((?:python|torchrun) [^`]+)`", text)
        for line in lines:
            if line.split(maxsplit=1)[:1] not in (["python"], ["torchrun"], ["srun"]):
                continue
            words = shlex.split(line, comments=True)
            scripts = [word for word in words if word.removesuffix(".py") in SCRIPTS]
            if scripts:
                script = next(word for word in scripts if word.endswith(".py"))
                arguments = words[words.index(script) + 1 :]
                found.append((page.name, script.removesuffix(".py"), arguments))
    return found


@pytest.mark.parametrize(("page", "script", "arguments"), commands())
def test_every_command_fits_its_parser(page, script, arguments):
    if arguments != ["--help"]:
        importlib.import_module(script).get_args_parser().parse_args(arguments)


@pytest.fixture
def folder(in_tmp):
    """What the commands name: a data set, pictures, a video."""
    for name in ("my_data", "PennFudanPed"):
        draw_data_set(in_tmp / "input" / name)
    for name in ("my_pictures", "input/inference_data/images"):
        save_pictures(in_tmp / name, {"a.png": (40, 30), "b.png": (40, 30)})
    make_video(in_tmp / "video.mp4", grey_frames(3))
    return in_tmp


def test_commands_run_in_their_order(folder, monkeypatch):
    first = "--data input/my_data --imgsz 28"
    todo = [("README.md", "train", first.split()), *commands()]
    done = set()
    for page, script, arguments in todo:
        line = f"{script}.py " + " ".join(arguments)
        if line in done or any(word in line for word in ELSEWHERE) or arguments == ["--help"]:
            continue
        done.add(line)
        argv = [*arguments, *SMALL.get(script, "").split()]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *argv])  # which run.json keeps
        try:
            importlib.import_module(script).main(argv)
        except SystemExit as stop:
            raise AssertionError(f"{page}: {line}: {stop.code}") from stop
    assert len(done) > 10, done


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


def test_the_readme_is_short():
    assert len((REPO / "README.md").read_text(encoding="utf-8").split()) <= 900


def examples(name: str) -> list[str]:
    text = (REPO / "docs" / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("number", "flag"),
    [(0, "--head bottleneck"), (1, "--loss smooth"), (2, "--data input/my_scans")],
)
def test_an_extension_trains(number, flag, folder, monkeypatch):
    import losses
    import model
    from data import layouts

    for table, name in (
        (model.HEADS, "bottleneck"),
        (losses.PIXEL_LOSSES, "smooth"), (layouts.FOLDERS, "scans, truth"),
    ):  # fmt: skip
        monkeypatch.setitem(table, name, None)  # what the example sets is removed at the end
        monkeypatch.delitem(table, name)
    for source, target in (("train", "train"), ("valid", "val")):
        for kind, name in (("images", "scans"), ("masks", "truth"), ("masks", "rough")):
            data = folder / "input" / "my_data" / f"{source}_{kind}"
            shutil.copytree(data, folder / "input" / "my_scans" / name / target)
    arguments = f"--data input/my_data {flag} --cache-features 1 {SMALL['train']}"
    monkeypatch.setattr(sys, "argv", ["my.py", *arguments.split()])
    exec(examples("extending.md")[number], {"__name__": "__main__"})
    assert torch.load("outputs/best_model_iou.pth", weights_only=True)["epoch"] == 1


def test_the_notebook_runs(folder, monkeypatch):
    """Its own data set is drawn elsewhere; a small one stands in its place."""
    unseen = folder / "input" / "demo" / "unseen"
    shutil.copytree(folder / "input" / "my_data", folder / "input" / "demo")
    unseen.mkdir()
    Image.fromarray(draw_pair(2, 56, 42)[0]).save(unseen / "000.jpg")
    make_video(folder / "input" / "demo" / "walkers.mp4", grey_frames(3))
    shown = types.ModuleType("IPython.display")
    shown.Image, shown.Video = (lambda path, **_: open(path, "rb").close(),) * 2
    shown.display = lambda *_: None
    package = types.ModuleType("IPython")
    package.version_info = (9, 0)  # which matplotlib asks for where it draws first
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)

    def run(script, *flags):
        if script != "-m":  # the demo
            importlib.import_module(script.removesuffix(".py")).main(list(flags))

    notebook = json.loads((REPO / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace(
                "torch.hub.load(str(REPO)", "torch.hub.load(HUB"
            )
            exec(source, names)
            names |= {"run": run, "REPO": folder, "HUB": str(REPO)}
            names |= {"EPOCHS": "1", "SIZE": ["28", "28"]}
    assert set(names["labels"].ravel()) <= {0, 1}
    assert np.shape(names["labels"]) == (42, 56)
