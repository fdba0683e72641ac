"""DINOv2's best ADE20K model, a Mask2Former on a ViT-Adapter: addresses, loading, test protocol.

Source: the model card of facebookresearch/dinov2. Settings that the tensors' shapes do not show are
read from the published config (see mask2former_config.py). Without that file, the defaults here and
in Mask2FormerConfig are used, and a line on stdout lists them.
"""

from pathlib import Path

import torch

from common.tensor_files import check_state, hub_file, load_published
from config import PredictorOptions
from data.labels.classes import ADE20K, Classes
from inference.mask2former_config import read_config
from inference.protocol import Protocol, ShortSide
from networks.mask2former.config import Mask2FormerConfig
from networks.mask2former.network import INPUT_MULTIPLE, Mask2Former
from utils import InputError

NAME = "dinov2_vitg14_ade20k_m2f"
PAPER_MIOU = 60.2  # percent, on ADE20K's validation images (Oquab et al. 2023, section 7.4)
PARAMETERS = 1_719_806_999
FILE_BYTES = 4 * PARAMETERS
ARCHITECTURE = Mask2FormerConfig()
# Inferred from the unedited parts of an edited copy of Meta's config. Meta's stored result of the
# notebook's picture agrees: it has a seam at column 174 of 640, where the second window begins
# when the picture is resized to 704 x 512 pixels.
PROTOCOL = Protocol(ShortSide(512, 2048, INPUT_MULTIPLE), 512, 341, stretch=True)
_BASE_URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14"
URL = f"{_BASE_URL}/{NAME}.pth"
CONFIG_URL = f"{_BASE_URL}/{NAME}_config.py"


def is_m2f(model: str) -> bool:
    """Whether this is the model's name or a file with that name."""
    return Path(model).stem == NAME


def check_m2f_options(model: str | Path, options: PredictorOptions) -> None:
    """Raise InputError for options that this model does not take."""
    if options.weights or options.hub_repo:
        raise InputError(f"{model} has its own backbone: leave out --weights and --hub-repo")
    if options.min_confidence:
        raise InputError(
            f"--min-confidence: {model} gives scores, and their softmax stays near 1/150 even "
            "where the model is certain; leave it out"
        )


def load_m2f(
    model: str, device: torch.device, dtype: torch.dtype
) -> tuple[Mask2Former, Classes, Protocol, float]:
    """The model by its name (downloaded once, 6.9 GB) or file, on the device and in dtype.

    The file is mapped into memory and read tensor by tensor, so loading takes no more memory than
    the model itself. Prints where the settings come from. The last value is the paper's mIoU (%).
    """
    path = hub_file(URL) if model == NAME else Path(model)
    state = load_published(path, mapped=True)
    config, protocol = _settings(path)
    with torch.device("meta"):
        module = Mask2Former(config)
    check_state(state, module.state_dict(), f"{path} is not {NAME}")
    for name, value in state.items():
        floating = value.is_floating_point()
        # Integer counters are copied: a view would keep the whole file mapped.
        state[name] = value.to(device, dtype) if floating else value.to(device, copy=True)
    module.load_state_dict(state, strict=True, assign=True)
    return module.requires_grad_(False).eval(), ADE20K, protocol, PAPER_MIOU


def _settings(path: Path) -> tuple[Mask2FormerConfig, Protocol]:
    config, protocol, source = ARCHITECTURE, PROTOCOL, _find_config(path)
    assumed = ["all settings"]
    if source:
        config, protocol, assumed = read_config(source, config, protocol)
        print(f"{NAME}: settings read from {source}")
    if assumed:
        crop = f"{protocol.crop} pixels every {protocol.stride}" if protocol.crop else "none"
        print(
            f"{NAME}: not in a published config, defaults used: {', '.join(assumed)} "
            f"(decoder heads {config.decoder_heads}, pixel decoder heads x points "
            f"{config.pixel_heads} x {config.pixel_points}, adapter heads x points "
            f"{config.deform_num_heads} x {config.n_points}, short side {protocol.resize.short}, "
            f"windows {crop})"
        )
    return config, protocol


def _find_config(path: Path) -> Path | None:
    """The published config: beside the weights, in torch.hub's folder, or downloaded; else None."""
    beside = path.with_name(f"{NAME}_config.py")
    if beside.is_file():
        return beside
    try:
        return hub_file(CONFIG_URL)
    except InputError:
        return None


def summary() -> str:
    """The line that --list-models prints for this model."""
    return (
        f"  {NAME:<30} {ADE20K.num_classes:>3} classes, {PARAMETERS:,} parameters "
        f"({FILE_BYTES / 1e9:.1f} GB), mIoU in the paper {PAPER_MIOU} %"
    )
