"""Constants, backbones, heads and values of flags, as plain data."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

VERSION = "0.2.0"  # as in pyproject.toml
MAX_CLASSES = 255  # a label is a byte, and 255 is IGNORE_INDEX
IGNORE_INDEX = 255  # these pixels are not trained on, not scored and not coloured
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SAT493M_MEAN = (0.430, 0.411, 0.296)  # satellite pictures, for some weights of DINOv3
SAT493M_STD = (0.213, 0.156, 0.143)
WEIGHT_DECAY = 1e-4  # as the published heads were trained with
TRAIN_SIZE = (448, 448)  # height, width in pixels
MAX_IMAGE_SIDE = 8192  # pixels that --imgsz may ask for; one picture is 0.8 GB then
LR_DECAY = 0.1  # factor on the learning rate at each of --scheduler-epochs
OUTPUTS = Path("outputs")  # all results go below it
INPUTS = Path("input")  # downloaded and drawn data sets go below it
SPLIT_WORDS = {  # what folders and files of each split are called
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "eval"),
    "test": ("test", "testing", "holdout"),
}
VALID_FRACTION = 0.15  # of the pairs, where there is no validation set

# -- models ----------------------------------------------------------------------------------------

THIS_REPO = str(Path(__file__).resolve().parent)
# Fixed commits: a later push to these repositories changes nothing here.
DINOV2_REPO = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"
DINOV3_REPO = "facebookresearch/dinov3:6876159a11b4df116f30f667f8c9888617df0751"
DINOV3_PAGE = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads"

TIMM = "timm/"  # begins the names of timm's models


@dataclass(frozen=True)
class InputFormat:
    """What a backbone expects of images: whole patches, and RGB 0..1 normalised by mean and std."""

    patch_size: int = 14  # pixels
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


DINOV2_INPUT = InputFormat()


@dataclass(frozen=True)
class Backbone:
    """An entry of torch.hub that this repository knows."""

    hub_repo: str  # torch.hub's source unless --hub-repo is given
    parameters: int
    embed_dim: int
    licence: str
    patch_size: int = 14
    request_weights_at: str = ""  # the page, where weights are not free to download
    timm_name: str = ""  # of the same weights, which timm gives without a request

    @property
    def source(self) -> str:
        """Where code and weights come from, for people."""
        code = "this repository" if self.hub_repo == THIS_REPO else self.hub_repo.split(":")[0]
        if not self.request_weights_at:
            return code
        also = f", or {TIMM}{self.timm_name}" if self.timm_name else ""
        return f"{code}; weights on request{also}"


_dinov2 = partial(Backbone, DINOV2_REPO, licence="Apache-2.0")
_dinov3 = partial(
    Backbone, DINOV3_REPO, licence="DINOv3 License", patch_size=16, request_weights_at=DINOV3_PAGE
)
_web_dino = partial(Backbone, THIS_REPO, licence="CC-BY-NC-4.0")

BACKBONES = {
    "dinov2_vitt14": Backbone(THIS_REPO, 2_834_688, 192, "MIT"),
    "dinov2_vits14": _dinov2(22_056_576, 384),
    "dinov2_vitb14": _dinov2(86_580_480, 768),
    "dinov2_vitl14": _dinov2(304_368_640, 1024),
    "dinov2_vitg14": _dinov2(1_136_480_768, 1536),
    "dinov2_vits14_reg": _dinov2(22_058_112, 384),
    "dinov2_vitb14_reg": _dinov2(86_583_552, 768),
    "dinov2_vitl14_reg": _dinov2(304_372_736, 1024),
    "dinov2_vitg14_reg": _dinov2(1_136_486_912, 1536),
    "dinov3_vits16": _dinov3(21_601_152, 384, timm_name="vit_small_patch16_dinov3_qkvb"),
    "dinov3_vits16plus": _dinov3(28_697_472, 384, timm_name="vit_small_plus_patch16_dinov3_qkvb"),
    "dinov3_vitb16": _dinov3(85_669_632, 768, timm_name="vit_base_patch16_dinov3_qkvb"),
    "dinov3_vitl16": _dinov3(303_154_176, 1024, timm_name="vit_large_patch16_dinov3_qkvb"),
    "dinov3_vitl16plus": _dinov3(403_915_776, 1024),
    "dinov3_vith16plus": _dinov3(840_633_600, 1280, timm_name="vit_huge_plus_patch16_dinov3_qkvb"),
    "dinov3_vit7b16": _dinov3(6_716_043_264, 4096, timm_name="vit_7b_patch16_dinov3"),
    "webssl_dino300m_full2b_224": _web_dino(303_655_168, 1024),
    "webssl_dino1b_full2b_224": _web_dino(1_134_771_200, 1536),
    "webssl_dino1b_in1k_224": _web_dino(1_134_771_200, 1536),
    "webssl_dino2b_full2b_224": _web_dino(2_084_237_568, 2688),
    "webssl_dino2b_light2b_224": _web_dino(2_084_237_568, 2688),
    "webssl_dino2b_heavy2b_224": _web_dino(2_084_237_568, 2688),
    "webssl_dino2b_in1k_224": _web_dino(2_084_237_568, 2688),
    "webssl_dino3b_full2b_224": _web_dino(2_948_317_184, 3072),
    "webssl_dino3b_light2b_224": _web_dino(2_948_317_184, 3072),
    "webssl_dino3b_heavy2b_224": _web_dino(2_948_317_184, 3072),
    "webssl_dino3b_in1k_224": _web_dino(2_948_317_184, 3072),
    "webssl_dino5b_full2b_224": _web_dino(4_938_338_816, 3584),
    "webssl_dino7b_full8b_224": _web_dino(6_450_170_880, 4096),
    "webssl_dino7b_full8b_378": _web_dino(6_452_108_288, 4096),
    "webssl_dino7b_full8b_518": _web_dino(6_454_729_728, 4096),
}


@dataclass(frozen=True)
class ModelConfig:
    """What it takes to build a model."""

    backbone: str
    head: str
    num_classes: int
    weights: str = "pretrained"  # of the backbone: "pretrained", "none" or a file
    hub_repo: str | None = None  # None: the backbone's own
    fine_tune: bool = False


@dataclass(frozen=True)
class PredictorOptions:
    """How a model is loaded and how pictures are shown to it.

    weights, hub_repo: of the backbone; None for those that the model was trained on.
    image_size (H, W), mode, ratios, flip: see Protocol.overridden.
    tile, tile_overlap: see Protocol.tiled; in place of image_size and mode.
    batch_size: windows that go through the model together.
    min_confidence: a label of lower probability becomes IGNORE_INDEX.
    refine: sharpen the probabilities along the edges of the picture, see inference/refinement.py.
    dtype: a name from DTYPES, for the weights and the computation; scores are float32.
    runtime: a name from RUNTIMES, for the backbone.
    compile: compile the backbone with torch.compile.
    """

    weights: str | None = None
    hub_repo: str | None = None
    image_size: tuple[int, int] | None = None
    mode: str | None = None
    ratios: tuple[float, ...] | None = None
    flip: bool | None = None
    tile: int | None = None
    tile_overlap: int | None = None
    batch_size: int = 1
    min_confidence: float = 0.0
    dtype: str = "float32"
    runtime: str = "torch"
    compile: bool = False
    refine: bool = False


# -- values of flags ------------------------------------------------------------------------------

SCHEDULES = ("step", "cosine", "poly")
DTYPES = ("float32", "bfloat16", "float16")
RUNTIMES = ("torch", "openvino", "auto")
DOWNLOADS = ("pennfudan", "voc2012")
