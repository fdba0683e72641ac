"""What torch.hub offers, beside a program's own modules of the same names too."""

import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from helpers.basics import CHECKPOINT, REPO

import config
import hubconf


def build_on_meta(name):
    with torch.device("meta"):
        return getattr(hubconf, name)(pretrained=False)


# Those that hubconf.py offers; DINOv3's code is Meta's alone.
OWN_ENTRIES = [
    name for name, known in config.BACKBONES.items() if known.hub_repo != config.DINOV3_REPO
]


@pytest.mark.parametrize("name", OWN_ENTRIES)
def test_parameters_of_every_entry(name):
    model = build_on_meta(name)
    known = config.BACKBONES[name]
    assert sum(p.numel() for p in model.parameters()) == known.parameters
    assert (model.patch_size, model.embed_dim) == (known.patch_size, known.embed_dim)


def test_every_public_callable_is_an_entry():
    """torch.hub offers whatever does not begin with an underscore."""
    public = {n for n, v in vars(hubconf).items() if callable(v) and not n.startswith("_")}
    assert public == {*OWN_ENTRIES, "segmenter"}


@pytest.mark.parametrize("chunks", [0, 4])
def test_pretrained_takes_the_file_from_the_hub_folder(tmp_path, monkeypatch, chunks):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    source = hubconf.dinov2_vits14(pretrained=False, block_chunks=chunks)
    (tmp_path / "checkpoints").mkdir()
    torch.save(source.state_dict(), tmp_path / "checkpoints" / "dinov2_vits14_pretrain.pth")
    loaded = hubconf.dinov2_vits14(pretrained=True)
    assert torch.equal(loaded.blocks[11].mlp.fc2.weight, source._flat_blocks()[11].mlp.fc2.weight)
    assert torch.equal(loaded.pos_embed, source.pos_embed)


def test_downloads_come_from_metas_addresses(tmp_path, monkeypatch):
    offline = Mock(side_effect=OSError("no route"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with torch.device("meta"):
        for name in ("dinov2_vitb14", "dinov2_vits14_reg", "webssl_dino300m_full2b_224"):
            with pytest.raises(ConnectionError, match="put it into") as error:
                getattr(hubconf, name)()
            assert str(tmp_path / "checkpoints") in str(error.value)
    base = "https://dl.fbaipublicfiles.com"
    assert [call.args[0] for call in offline.call_args_list] == [
        f"{base}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        f"{base}/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        f"{base}/webssl/webssl_dino300m_full2b_224.pth",
    ]


PROGRAM = """
import sys, numpy as np, torch
from concurrent.futures import ThreadPoolExecutor
import config, data, utils
backbone = torch.hub.load(sys.argv[1], "dinov2_vits14", source="local", pretrained=False)
assert sum(p.numel() for p in backbone.parameters()) == 22_056_576
predictor = torch.hub.load(sys.argv[1], "segmenter", sys.argv[2], source="local", device="cpu")
picture = np.zeros((75, 97, 3), np.uint8)
print(predictor.predict([picture])[0].labels.shape)
def load(_):
    device = torch.device("cpu")
    return torch.hub.load(sys.argv[1], "segmenter", sys.argv[2], source="local", device=device)
with ThreadPoolExecutor(4) as pool:
    print({int(other.predict([picture])[0].labels.sum()) for other in pool.map(load, range(4))})
assert sys.modules["utils"] is utils
import networks.own
"""


def test_a_predictor_beside_packages_of_the_same_names(tmp_path):
    for name in ("config.py", "data.py", "utils.py", "networks/__init__.py", "networks/own.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    command = [sys.executable, "-c", PROGRAM, str(REPO), str(CHECKPOINT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(75, 97)\n{0}\n"), done.stderr
