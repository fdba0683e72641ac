"""Train a segmentation head on a DINOv2 or other ViT backbone."""

if __name__ == "__main__":  # before the imports, which take seconds
    from common.signals import end_at_interrupt

    end_at_interrupt()

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch

import config
from common.distributed import from_main, main_first, session, world_size
from common.exits import exits_cleanly
from common.flags import (
    add_data_flags,
    add_model_flags,
    add_recipe,
    add_shared,
    add_trained_part,
    add_used_model,
    predictor_options,
)
from common.lock import sole_writer
from common.parser import Parser, number
from data.augment import build_augment
from data.labels.classes import PRESETS, Classes
from data.pairs import SPLIT_NAMES, read_pair
from data.survey import SegmentationData, load_data
from data.transforms import Resize
from datasets import build_loaders, build_test_loader, splits_from_flags
from inference.published_heads import start_from_head
from losses import build_criterion
from metrics import BoundaryIoU, ConfusionMatrix, ImageObserver, Scores
from model import build_model
from networks.weights import fingerprint
from predictor import Predictor, load_predictor
from results.history import watched
from results.pages.run import RunPage, data_facts, training_facts
from results.scores import write_scores
from training.feature_cache import FeatureSettings, cached_loaders, cached_valid_loader
from training.optimizers import OptimizerSettings, build_updater
from training.run_folder import RunFolder, checkpoint_header, open_board
from training.run_info import record_job, replace_earlier_run, write_run_facts
from training.trainer import Trainer
from utils import (
    InputError,
    amp_dtype,
    make_deterministic,
    output_folder,
    progress,
    seed_everything,
)

NEEDED_BY = {  # flags that do nothing without another one
    "--fine-tune": (
        "--backbone-lr", "--layer-decay", "--unfreeze-blocks", "--checkpoint-activations",
    ),
    "--test-only": (
        "--split", "--model", "--mode", "--tile", "--tile-overlap", "--scales", "--refine",
        "--flip", "--dtype",
    ),
}  # fmt: skip


# fmt: off
def get_args_parser() -> Parser:
    parser = Parser("Train a segmentation head on a DINOv2 or other ViT backbone.")
    add_data_flags(parser)
    add_model_flags(parser, None, "; default: pretrained")

    add_trained_part(parser)
    add_recipe(parser)

    group = parser.add_argument_group("run")
    group.add_argument("--out-dir", default="", metavar="NAME", help="folder below outputs/")
    group.add_argument("--like", metavar="FILE",
        help="repeat the run of an outputs/NAME/run.json: its flags, but for --out-dir and "
        "--resume, stand before those given here, which win")
    group.add_argument("--resume", nargs="?", const=True, metavar="FILE",
        help="continue from last.pth in the output folder, or from another such file")
    group.add_argument("--save-every", type=number(above=0), default=10.0, metavar="MINUTES",
        help="minutes between two saves of last.pth within an epoch")
    add_shared(group, "--device", "--runtime")
    group.add_argument("--amp", action="store_true",
        help="mixed precision: bfloat16, or float16 on chips without it")
    add_shared(group, "--compile", "--workers", "--seed")
    group.add_argument("--deterministic", action="store_true",
        help="bit-identical results on CUDA too, slower; a CPU always gives them")
    group.add_argument("--tensorboard", action="store_true",
        help="log the scores for TensorBoard, which must be installed")
    add_shared(group, "--no-page")

    group = parser.add_argument_group("test")
    group.add_argument("--test-only", action="store_true",
        help="score --model on one split, write results.csv and the confusion matrix")
    group.add_argument("--split", choices=SPLIT_NAMES,
        help="split that --test-only scores; default: test if there is one, else valid")
    add_used_model(group)
    return parser
# fmt: on


def check_flags(args: argparse.Namespace, processes: int) -> None:
    """Raise InputError for flags that contradict each other."""
    if args.test_only and processes > 1:
        raise InputError("--test-only runs in a single process: start it without torchrun")
    if args.tensorboard and find_spec("tensorboard") is None:
        raise InputError("--tensorboard: pip install tensorboard first, or leave it out")
    if args.fine_tune and args.cache_features:
        raise InputError("--cache-features needs a frozen backbone: leave it out, or --fine-tune")
    if args.scheduler and args.schedule not in (None, "step"):
        raise InputError(f"--scheduler is --schedule step: leave out one of it and {args.schedule}")
    if args.scheduler_epochs and not (args.scheduler or args.schedule == "step"):
        raise InputError("--scheduler-epochs has no effect without --scheduler; add that")
    if args.fine_tune and args.runtime == "openvino":
        raise InputError("--runtime openvino needs a frozen backbone: leave it out, or --fine-tune")
    if args.compile and args.runtime == "openvino":
        raise InputError("--compile does nothing with --runtime openvino: leave out one of them")
    if (
        args.like
        and (config.OUTPUTS / args.out_dir).absolute() == Path(args.like).parent.absolute()
    ):
        raise InputError("--like needs an --out-dir of its own, so that the earlier run stays")
    given = {"--fine-tune": args.fine_tune, "--test-only": args.test_only}
    parser = get_args_parser()
    for needed, flags in NEEDED_BY.items():
        if not given[needed]:
            reason = f"has no effect without {needed}; add that, or leave it out"
            parser.refuse_given(args, flags, reason)


def optimizer_settings(args: argparse.Namespace) -> OptimizerSettings:
    schedule = args.schedule or "step"
    steps = args.scheduler or args.schedule == "step"
    return OptimizerSettings(
        args.lr, args.backbone_lr or args.lr / 10, args.layer_decay or 1.0, args.weight_decay,
        warmup_epochs=args.warmup, accumulate=args.grad_accum, clip_grad=args.clip_grad,
        schedule=schedule, milestones=(args.scheduler_epochs or [30]) if steps else [],
        epochs=None if schedule == "step" else args.epochs,
    )  # fmt: skip


def shared_settings(args: argparse.Namespace) -> dict:
    """The settings that a resumed run must share."""
    names = (
        "loss", "class_weights", "augment", "seed", "init_head", "cache_features", "amp",
        "unfreeze_blocks", "watch",
    )  # fmt: skip
    settings = asdict(optimizer_settings(args)) | {name: getattr(args, name) for name in names}
    return settings | {"pictures_per_step": args.batch * world_size()}


def score_model(
    predictor: Predictor, data: SegmentationData, folder: Path, split: str, observe: ImageObserver
) -> tuple[Scores, str]:
    """Score a model on one split, write the results; returns them, and as text to print.

    Class ids are compared at the mask's own size.

    observe: called with class ids, target and image of each picture, in the split's order.
    """
    check_same_classes(predictor.classes, data.classes)
    pairs = data.splits.pairs_of(split)
    if not pairs:
        raise InputError(f"--split {split}: {data.splits.layout} has no such pairs")
    num_classes = predictor.classes.num_classes
    matrix, near = ConfusionMatrix(num_classes), BoundaryIoU(num_classes)
    for pair in progress(pairs, "Testing"):
        image, target = read_pair(pair, data.encoding)
        labels = predictor.predict([image])[0].labels
        matrix.update(torch.from_numpy(labels), torch.from_numpy(target))
        near.update(labels, target)
        observe(labels, target, image)
    on_its_own_data = PRESETS.get(str(data.splits.classes)) == predictor.classes
    scores = matrix.compute() | {"matrix": matrix, "boundary_iou": near.compute()}
    paper_miou = predictor.paper_miou if on_its_own_data else None
    return scores, write_scores(scores, data.classes, folder, paper_miou)


def check_same_classes(model: Classes, data: Classes) -> None:
    """Raise InputError unless the model's classes are the data set's, by name and order."""
    if model.names != data.names:
        raise InputError(
            f"the model has {model.num_classes} classes ({', '.join(model.names[:5])}, ...), the "
            f"data set has {data.num_classes} ({', '.join(data.names[:5])}, ...); pass --classes "
            "with the model's classes, or another --model"
        )


def test_model(args: argparse.Namespace, data: SegmentationData, device: torch.device) -> str:
    """The scores of --model on --split, as a table; also written to files."""
    predictor = load_predictor(args.model, device, predictor_options(args))
    split = args.split or ("test" if data.splits.test else "valid")
    folder = output_folder(args.out_dir)
    facts = {"model": args.model, "device": str(device)} | data_facts(data)
    statement = f"{args.model} on the {split} pairs of {data.source}"
    pairs, wanted = data.splits.pairs_of(split), not args.no_page
    with RunPage(folder, data.classes, pairs, statement, facts, wanted=wanted) as page:
        scores, text = score_model(predictor, data, folder, split, page.add)
        page.finish(scores)
    return text


def train_model(args: argparse.Namespace, data: SegmentationData, device: torch.device) -> None:
    """Build loaders, model, loss and optimiser; train; score the best checkpoint."""
    watch = watched(args.watch, data.classes.names)
    spec = config.ModelConfig(
        args.backbone, args.head, data.classes.num_classes, args.weights or "pretrained",
        args.hub_repo, args.fine_tune,
    )  # fmt: skip
    with main_first():
        model = build_model(spec).to(device)
    resize = Resize(args.imgsz or config.TRAIN_SIZE, args.keep_ratio, model.input_format)
    augment = build_augment(args.augment, resize, args.seed)
    loaders = build_loaders(
        data, resize, augment, args.batch, args.workers, args.seed, device.type == "cuda"
    )
    test_loader = build_test_loader(data, loaders[1])
    scored = (test_loader or loaders[1]).dataset
    weights = fingerprint(model.backbone)
    header = checkpoint_header(spec, weights, data.classes, resize)
    header |= {"tiled": augment.tiled, "code": model.backbone.code}
    job = record_job(shared_settings(args), weights, loaders[0].dataset, loaders[1].dataset)
    run = RunFolder(output_folder(args.out_dir), header, job, watch)
    last = run.find_last(args.resume)
    saved = from_main(lambda: run.load_last(last, args.epochs)) if last else None
    if args.init_head:
        print(start_from_head(args.init_head, spec, model.head, data.classes))
    model.set_up_training(args.unfreeze_blocks, args.checkpoint_activations, args.compile)
    amp = amp_dtype(device) if args.amp else None
    if not args.fine_tune:
        model.use_runtime(args.runtime, amp or torch.float32)
    updater = build_updater(model, optimizer_settings(args), len(loaders[0]), device, amp)
    pixels = data.pixels("train") if args.class_weights == "auto" else None
    criterion = build_criterion(args.loss, model.output_stride, pixels, device)

    if args.cache_features:
        settings = FeatureSettings(args.backbone, config.HEADS[args.head], args.augment, args.seed)
        loaders = cached_loaders(model, loaders, args.cache_features, settings, device, amp)
    elif not args.fine_tune:
        loaders = loaders[0], cached_valid_loader(model, loaders[1], device, amp) or loaders[1]
    trainer = Trainer(
        model, *loaders, updater, criterion, device, run, 60 * args.save_every, test_loader
    )
    if saved:
        trainer.resume(last, saved)
    else:
        replace_earlier_run(run.folder)
    if args.tensorboard:
        run.board = open_board(run.folder, len(run.history))
    started = write_run_facts(run.folder, args.seed, device, bool(args.resume))
    backbone = f"{'fine-tuned' if args.fine_tune else 'frozen'} {args.backbone}"
    page = RunPage(
        run.folder, data.classes, scored.pairs,
        f"{args.head} head on the {backbone}, trained on {data.source}",
        training_facts(data, scored.resize.image_size, args.epochs, started),
        run.history, not args.no_page,
    )  # fmt: skip
    page.watch = watch
    with page:
        trainer.after_epoch = page.update
        trainer.fit(args.epochs, args.patience)
        run.save("final_model.pth", model.trained())
        scores, text = trainer.test(page.add)
        print(text)
        page.finish(scores)
    print(f"TRAINING COMPLETE: {run.summary()}")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = get_args_parser().parse_like(argv, own=("out_dir", "resume"))
    with session(args.device) as device:
        check_flags(args, world_size())
        seed_everything(args.seed)
        if args.deterministic:
            make_deterministic()
        with sole_writer(output_folder(args.out_dir)):
            with main_first():
                data = load_data(splits_from_flags(args))
            print(data)
            if args.test_only:
                print(test_model(args, data, device))
            else:
                train_model(args, data, device)


if __name__ == "__main__":
    main()
