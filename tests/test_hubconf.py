from unittest.mock import Mock

import pytest
import torch

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
