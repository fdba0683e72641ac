"""torch.hub entries: `torch.hub.load(DIR, "dinov2_vits14", source="local", pretrained=False)`.

The eight DINOv2 backbones, the Web-DINO backbones, and `dinov2_vitt14`, a tiny one for the demo
whose weights lie in this repository. `pretrained=True` takes the published file from torch.hub's
folder, or downloads it; further keyword arguments go to the constructor.

`segmenter` is a trained model: `torch.hub.load(DIR, "segmenter", "model.pth", source="local")`.
"""

dependencies = ["torch"]

import sys as _sys
from collections.abc import Callable as _Callable
from contextlib import contextmanager as _contextmanager
from importlib import import_module as _import_module
from importlib import util as _util
from pathlib import Path as _Path
from threading import RLock as _RLock

import torch as _torch

_ROOT = _Path(__file__).resolve().parent


def _load_vit():
    """Import networks/vit.py by its path: the calling program may have its own `networks`."""
    name = f"_networks_of_{_ROOT}"
    if name not in _sys.modules:
        folder = _ROOT / "networks"
        spec = _util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        _sys.modules[name] = _util.module_from_spec(spec)
    return _import_module(".vit", name)


_vit = _load_vit()

_BASE_URL = "https://dl.fbaipublicfiles.com"


def _load_state_dict(source: str | _Path) -> dict[str, _torch.Tensor]:
    """The tensors of a local file or an address, as float32, keys without block chunks."""
    if isinstance(source, _Path):
        state_dict = _torch.load(source, map_location="cpu", weights_only=True)
    else:
        folder = _Path(_torch.hub.get_dir()) / "checkpoints"
        try:  # into a temporary file with a progress bar, renamed when complete
            state_dict = _torch.hub.load_state_dict_from_url(
                source, model_dir=str(folder), map_location="cpu", weights_only=True
            )
        except OSError as error:
            raise ConnectionError(
                f"cannot download {source} ({error}); fetch it elsewhere and put it into {folder}"
            ) from error
    return {key: value.float() for key, value in _vit.flatten_block_chunks(state_dict).items()}


def _entry(name: str, weights: str | _Path, defaults: dict, **fixed) -> _Callable:
    """A hub entry. Callers may override `defaults`; overriding `fixed` is a TypeError."""

    def build(*, pretrained: bool = True, **kwargs) -> _vit.DinoVisionTransformer:
        model = _vit.DinoVisionTransformer(**fixed, **(defaults | kwargs))
        if pretrained:
            model.load_state_dict(_load_state_dict(weights), strict=True)
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}(*, pretrained=True, **kwargs) -> DinoVisionTransformer"
    return build


# Released by Meta, Apache-2.0; each size also with four registers, as `<name>_reg`.

_LVD142M = {"img_size": 518, "patch_size": 14, "init_values": 1.0}
_REGISTERS = {"num_register_tokens": 4, "interpolate_antialias": True, "interpolate_offset": 0.0}
_DINOV2 = {
    "dinov2_vits14": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "dinov2_vitb14": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "dinov2_vitl14": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "dinov2_vitg14": {
        "embed_dim": 1536, "depth": 40, "num_heads": 24, "ffn_layer": "swiglufused",
    },
}  # fmt: skip
for _name, _sizes in _DINOV2.items():
    _url = f"{_BASE_URL}/dinov2/{_name}/{_name}"
    globals()[_name] = _entry(_name, f"{_url}_pretrain.pth", _LVD142M, **_sizes)
    globals()[f"{_name}_reg"] = _entry(
        f"{_name}_reg", f"{_url}_reg4_pretrain.pth", _LVD142M, **_sizes, **_REGISTERS
    )

# Trained on drawn scenes alone (`python -m demo --pretrain`), for the demo and the tests.

dinov2_vitt14 = _entry(
    "dinov2_vitt14",
    _ROOT / "weights" / "dinov2_vitt14.pth",
    {"img_size": 224, "patch_size": 14, "init_values": 1.0},
    embed_dim=192,
    depth=6,
    num_heads=3,
)

# Web-DINO (Fan et al. 2025, arXiv 2504.01017), CC-BY-NC-4.0: not for commercial use.

_WEB_DINO = {  # width, blocks, attention heads; pictures and their side in pixels
    "webssl_dino300m": (1024, 24, 16, "full2b_224"),
    "webssl_dino1b": (1536, 40, 24, "full2b_224 in1k_224"),
    "webssl_dino2b": (2688, 24, 21, "full2b_224 light2b_224 heavy2b_224 in1k_224"),
    "webssl_dino3b": (3072, 26, 24, "full2b_224 light2b_224 heavy2b_224 in1k_224"),
    "webssl_dino5b": (3584, 32, 28, "full2b_224"),
    "webssl_dino7b": (4096, 32, 32, "full8b_224 full8b_378 full8b_518"),
}
for _size, (_width, _depth, _heads, _data) in _WEB_DINO.items():
    for _name in (f"{_size}_{_pictures}" for _pictures in _data.split()):
        globals()[_name] = _entry(
            _name,
            f"{_BASE_URL}/webssl/{_name}.pth",
            {"img_size": int(_name.rsplit("_", 1)[1]), "patch_size": 14, "init_values": 1e-5},
            embed_dim=_width,
            depth=_depth,
            num_heads=_heads,
            ffn_layer="swiglu",
        )

# A trained model, ready to run.

# One for all threads: torch.hub makes a new module of this file for each load.
_LOCK = vars(_vit).setdefault("_lock", _RLock())


@_contextmanager
def _own_modules():
    """Import this repository's modules, whose names (data, utils, config) programs use too.

    Modules of the program under such names are set aside, and put back afterwards.
    """
    names = {path.stem for path in _ROOT.glob("*.py")}
    names |= {path.parent.name for path in _ROOT.glob("*/__init__.py")}

    def take_out() -> dict:
        found = [name for name in _sys.modules if name.split(".")[0] in names]
        return {name: _sys.modules.pop(name) for name in found}

    theirs = take_out()
    _sys.path.insert(0, str(_ROOT))
    try:
        yield
    finally:
        _sys.path.remove(str(_ROOT))
        take_out()
        _sys.modules.update(theirs)


def segmenter(checkpoint: str = "outputs/best_model_iou.pth", device: str = "auto", **options):
    """A Predictor: `predict([picture])` gives the class ids of RGB pictures (H, W, 3) uint8.

    checkpoint: a trained checkpoint, or a published head's name. device: "auto", or torch's.
    options: fields of predictor.PredictorOptions.
    """
    with _LOCK, _own_modules():
        from predictor import PredictorOptions, load_predictor
        from utils import select_device

        return load_predictor(checkpoint, select_device(str(device)), PredictorOptions(**options))
