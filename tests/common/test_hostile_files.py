"""Files made to do harm are refused in a line, soon and in little memory, by all their readers."""

import io
import struct
import zipfile
from contextlib import closing
from dataclasses import fields

import pytest
import torch
from helpers.basics import draw_data_set
from helpers.forked import Forks
from helpers.published import Hostile, published_content
from helpers.stubs import fails

import infer_image
import infer_video
import train
from common.checkpoints import Checkpoint
from inference.published_heads import OFFICIAL_HEADS
from predictor import load_predictor
from utils import InputError

TINY = "--backbone dinov2_vitt14 --weights none --imgsz 56 --workers 0 --epochs 2 --batch 2".split()
TEN_GB = 2_500_000_000  # numbers of 4 bytes
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set and a run of two epochs on it."""
    folder = tmp_path_factory.mktemp("hostile")
    draw_data_set(folder / "data", train=4, valid=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(["--data", "data", *TINY])
    return folder


@pytest.fixture
def content(folder):
    """Of last.pth."""
    return torch.load(folder / "outputs/last.pth", weights_only=True)


def readers(data, path):
    """The scripts that a user may give a checkpoint to."""
    return [
        (train.main, "--data", data, *TINY, "--resume", path),
        (train.main, "--data", data, "--test-only", "--model", path),
        (infer_image.main, "--input", data / "valid_images", "--model", path),
        (infer_video.main, "--input", "film.mp4", "--model", path),
    ]


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def rewritten(content, change, compression=zipfile.ZIP_STORED):
    """What torch.save makes of content, each entry of the archive changed."""
    whole, result = io.BytesIO(saved(content)), io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(result, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return result.getvalue()


def with_marked_tensor(content):
    weights = content["model_state_dict"]
    return content | {"model_state_dict": weights | {"head.bn.weight": torch.zeros(54321)}}


def header_of_ten_gb(content):
    """A storage that claims 10 GB and has 217 KB."""
    claimed = b"\x8a\x05" + TEN_GB.to_bytes(5, "little")

    marked = b"M" + struct.pack("<H", 54321)

    def change(name, data):
        return data.replace(marked, claimed) if "data.pkl" in name else data

    return rewritten(with_marked_tensor(content), change)


def bomb(content):
    """217 KB of zeros that became 100 MB, packed."""

    def change(name, data):
        return bytes(100_000_000) if data == bytes(4 * 54321) else data

    return rewritten(with_marked_tensor(content), change, zipfile.ZIP_DEFLATED)


def with_weights(**weights):
    def make(content):
        return saved(content | {"model_state_dict": content["model_state_dict"] | weights})

    return make


def nested(depth=60):
    """A list of two lists that are one, of two lists ...: of endless text."""
    value = [0, 0]
    for _ in range(depth):
        value = [value, value]
    return value


FILES = {
    "code": lambda content: saved(content | {"job": Hostile()}),
    "empty": lambda content: b"",
    "text": lambda content: b"hello",
    "cut": lambda content: saved(content)[:-3000],
    "a list": lambda content: saved([content]),
    "names of numbers": lambda content: saved(content | {1: 2}),
    "another version": lambda content: saved(content | {"version": 99}),
    "a strange version": lambda content: saved(content | {"version": nested()}),
    "header of 10 GB": header_of_ten_gb,
    "expanded to 10 GB": with_weights(**{"head.bn.weight": torch.zeros(1).expand(TEN_GB)}),
    "expanded, not known": with_weights(more=torch.zeros(1).expand(TEN_GB)),
    "a bomb": bomb,
    "10 GB of nothing": with_weights(**{"head.bn.weight": torch.empty(TEN_GB, device="meta")}),
    "sparse": with_weights(**{"head.bn.weight": torch.zeros(768).to_sparse()}),
    "not a number": with_weights(**{"head.bn.weight": torch.full((768,), torch.nan)}),
    "negative variances": with_weights(**{"head.bn.running_var": -torch.ones(768)}),
    "scores that overflow": with_weights(
        **{"head.conv_seg.weight": torch.full((2, 768, 1, 1), 1e38)}
    ),
    "many classes": lambda content: saved(
        content | {"classes": ["x"] * 10**5, "palette": [[0, 0, 0]] * 10**5}
    ),
    "wide": lambda content: saved(content | {"image_size": [10**9, 10**9]}),
}


def check_line(message, name):
    assert name in message
    assert len(message.splitlines()) == 1
    assert len(message) < 600


@pytest.mark.parametrize("kind", [*FILES, "a folder"])
def test_no_script_takes_a_hostile_file(folder, content, in_tmp, capsys, kind):
    path = in_tmp / "hostile.pth"
    if kind == "a folder":
        path.mkdir()
    else:
        path.write_bytes(FILES[kind](content))
    for reader in readers(folder / "data", path):
        check_line(fails(capsys, *reader), "hostile.pth")
    assert not (in_tmp / "owned").exists()


def test_memory_that_a_hostile_file_costs(folder, content, tmp_path):
    """Megabytes above what the process had before, in its own words."""
    setup = (
        "import atexit, re\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "atexit.register(lambda before=peak(): print('cost', (peak() - before) // 1024))"
    )
    costs = {}
    with closing(Forks(tmp_path)) as forks:
        for kind in ("another version", "header of 10 GB", "expanded to 10 GB", "a bomb"):
            (tmp_path / "hostile.pth").write_bytes(FILES[kind](content))
            argv = ["--data", folder / "data", "--test-only", "--model", "hostile.pth"]
            code, output = forks.run(*argv, setup=setup)
            assert code == 1, output
            costs[kind] = int(output.split("cost ")[1].split()[0])
    assert max(costs.values()) < costs["another version"] + 40, costs


STRANGE = ["x", -1, 0.5, None, [], {}, (1, 2), torch.zeros(2, 2), [torch.zeros(3)], {"a": []},
           10**400, float("nan"), "a\nb", "y" * 10**6, nested(),
           ["a", "half \ud83d"], ["a", "x" * 70_000]]  # fmt: skip


FIELDS = {item.name: item.type for item in fields(Checkpoint)}


@pytest.mark.parametrize("name", FIELDS)
def test_strange_fields_are_refused_or_do_no_harm(folder, content, tmp_path, name):
    path = tmp_path / "strange.pth"
    for value in STRANGE:
        torch.save(content | {name: value}, path)
        try:
            load_predictor(path, CPU)
        except InputError as error:
            check_line(str(error), str(path))
        else:
            # Says nothing of the model, or names code, which is only taken from trusted places.
            assert name in ("epoch", "metrics", "hub_repo", "training", "value_range")
            assert isinstance(value, FIELDS[name])


STATE = ("history", "job", "optimizer", "totals", "random_states")


@pytest.mark.parametrize("name", STATE)
def test_a_strange_state_is_refused(folder, content, in_tmp, capsys, name):
    for value in (None, 10**400, torch.zeros(2, 2), nested()):
        torch.save(content | {"training": content["training"] | {name: value}}, "last.pth")
        argv = ["--data", folder / "data", *TINY, "--resume", "last.pth"]
        check_line(fails(capsys, train.main, *argv), "last.pth")


@pytest.mark.parametrize("value", ["x", torch.zeros(1), torch.tensor(0).to_sparse(), [1]])
def test_a_published_head_of_strange_tensors(folder, in_tmp, capsys, value):
    head = "dinov2_vits14_voc2012_linear"
    path = in_tmp / f"{head}_head.pth"
    changed = {"decode_head.bn.num_batches_tracked": value}
    torch.save(published_content(OFFICIAL_HEADS[head], **changed), path)
    argv = ["--input", folder / "data/valid_images", "--model", path, "--weights", "none"]
    assert path.name in fails(capsys, infer_image.main, *argv)
