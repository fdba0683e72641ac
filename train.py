"""Train a segmentation head on a DINOv2 or other ViT backbone."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import config
from common.checkpoints import Checkpoint, check_weights
from common.distributed import from_main, is_main, main_first, session, world_size
from common.exits import exits_cleanly
from common.flags import (
    NEEDED_BY,
    OF_TRAINING,
    add_data_flags,
    add_model_flags,
    add_recipe,
    add_run,
    add_trained_part,
    predictor_options,
)
from common.lock import sole_writer
from common.parser import Parser
from data.augment import AUGMENTS, build_augment
from data.labels.classes import PRESETS
from data.pairs import read_pair
from data.survey import SegmentationData, load_data
from data.transforms import Resize
from datasets import SegmentationDataset, build_loaders, own_indices, splits_from_flags, timed_epoch
from engine import EpochTotals, evaluate, train_one_epoch
from inference.published_heads import start_from_head
from losses import PIXEL_LOSSES, Criterion, build_criterion
from metrics import BoundaryIoU, ConfusionMatrix, Scores
from model import HEADS, SegmentationModel, build_model
from networks.weights import fingerprint
from predictor import load_predictor
from results.history import Watch, watched
from results.pages.run import RunPage, data_facts, training_facts
from results.scores import check_same_classes, write_scores
from training.checkpointer import Checkpointer, explained, find_last
from training.feature_cache import cached_loaders, cached_valid_loader
from training.optimizers import OptimizerSettings, build_optimizer
from training.run_folder import RunFolder, describe_model
from training.run_info import record_job, write_final_scores, write_run_facts
from utils import InputError, amp_dtype, output_folder, progress, seed_everything


def get_args_parser() -> Parser:
    parser = Parser("Train a segmentation head on a DINOv2 or other ViT backbone.")
    add_data_flags(parser)
    add_model_flags(parser, HEADS, None, "; default: pretrained")
    add_trained_part(parser)
    add_recipe(parser, PIXEL_LOSSES, AUGMENTS)
    add_run(parser)
    return parser


def check_flags(parser: Parser, args: argparse.Namespace, processes: int) -> None:
    """Raise InputError for flags that contradict each other, or have no effect; warn of others."""
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
    if args.like and Path(args.like).parent.resolve() == (config.OUTPUTS / args.out_dir).resolve():
        raise InputError("--like needs an --out-dir of its own, so that the earlier run stays")
    for needed, flags in NEEDED_BY.items():
        parser.refuse_without(args, needed, flags)
    if args.test_only:
        parser.refuse_given(args, OF_TRAINING, "has no effect with --test-only; leave it out")
    milestones = optimizer_settings(args).milestones
    if milestones and min(milestones) >= args.epochs:
        print("warning: --scheduler has no effect: the last epoch comes before its first change")


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


def feature_settings(args: argparse.Namespace) -> dict:
    """The settings that decide the backbone's features."""
    head_class, count = HEADS[args.head]
    read = {"blocks": count, "spread": getattr(head_class, "spread", False)}
    return read | {name: getattr(args, name) for name in ("backbone", "augment", "seed")}


def test_model(args: argparse.Namespace, data: SegmentationData, device: torch.device) -> None:
    """Score --model on --split at the masks' own sizes; print and write the scores."""
    predictor = load_predictor(args.model, device, predictor_options(args))
    check_same_classes(predictor.classes, data.classes)
    data = data.with_value_range(predictor.value_range or data.value_range)
    split = args.split or ("test" if data.splits.test else "valid")
    pairs = data.splits.pairs_of(split)
    if not pairs:
        raise InputError(f"--split {split}: {data.splits.layout} has no such pairs")
    matrix = ConfusionMatrix(data.classes.num_classes)
    near = BoundaryIoU(data.classes.num_classes)
    folder = output_folder(args.out_dir)
    facts = {"model": args.model, "device": str(device)} | data_facts(data)
    statement = f"{args.model} on the {split} pairs of {data.source}"
    with RunPage(folder, data.classes, pairs, statement, facts, wanted=not args.no_page) as page:
        for pair in progress(pairs, "Testing"):
            image, target = read_pair(pair, data.encoding)
            labels = predictor.predict([image])[0].labels
            matrix.update(torch.from_numpy(labels), torch.from_numpy(target))
            near.update(labels, target)
            page.add(pair, labels, target, image)
        scores = matrix.compute() | {"matrix": matrix, "boundary_iou": near.compute()}
        on_its_own_data = PRESETS.get(str(data.splits.classes_from)) == predictor.classes
        paper_miou = predictor.paper_miou if on_its_own_data else None
        print(write_scores(scores, data.classes, folder, paper_miou))
        page.finish(scores)


def model_spec(args: argparse.Namespace, data: SegmentationData) -> config.ModelConfig:
    return config.ModelConfig(
        args.backbone, args.head, data.classes.num_classes, args.weights or "pretrained",
        args.hub_repo, args.fine_tune,
    )  # fmt: skip


def build_trainable(
    args: argparse.Namespace, data: SegmentationData, device: torch.device
) -> SegmentationModel:
    """The model, ready to be trained as the flags say."""
    spec = model_spec(args, data)
    with main_first():
        model = build_model(spec).to(device)
    if args.init_head:
        print(start_from_head(args.init_head, spec, model.head, data.classes))
    amp = amp_dtype(device) if args.amp else None
    model.set_up_training(args.unfreeze_blocks, args.checkpoint_activations, args.compile, amp)
    if not args.fine_tune:
        model.use_runtime(args.runtime, amp or torch.float32)
    return model


def open_run(
    args: argparse.Namespace, data: SegmentationData, watch: Watch, model: SegmentationModel,
    train_set: SegmentationDataset, valid_set: SegmentationDataset,
) -> RunFolder:  # fmt: skip
    """The folder of a run, and what the run depends on."""
    weights = fingerprint(model.backbone)
    checkpoint = describe_model(
        model_spec(args, data), weights, data.classes, train_set.resize, train_set.augment.tiled,
        data.value_range,
    )  # fmt: skip
    job = record_job(shared_settings(args), weights, train_set, valid_set)
    return RunFolder(output_folder(args.out_dir), checkpoint, job, watch, args.tensorboard)


def train_model(args: argparse.Namespace, data: SegmentationData, device: torch.device) -> None:
    """Build, train epoch by epoch, and score the best checkpoint."""
    watch = watched(args.watch, data.classes.names, data.pixels("valid"))
    model = build_trainable(args, data, device)
    resize = Resize(args.imgsz or config.TRAIN_SIZE, args.keep_ratio, model.input_format)
    train_loader, valid_loader, test_loader = build_loaders(
        data, resize, build_augment(args.augment, resize, args.seed), args.batch, args.workers,
        args.seed, device.type == "cuda",
    )  # fmt: skip
    pixels = data.pixels("train") if args.class_weights == "auto" else None
    criterion = build_criterion(args.loss, model.upsample, pixels, device)
    optimizer = build_optimizer(model, optimizer_settings(args), len(train_loader))
    num_classes = data.classes.num_classes
    totals = EpochTotals(num_classes)
    run = open_run(args, data, watch, model, train_loader.dataset, valid_loader.dataset)
    saver = Checkpointer(run, model, optimizer, totals, 60 * args.save_every)
    saver.start(find_last(run, args.resume, args.epochs))  # refuses before features are computed
    if args.cache_features:
        views = min(args.cache_features, args.epochs)  # a view is what one epoch sees
        loaders = train_loader, valid_loader
        train_loader, valid_loader = cached_loaders(model, loaders, views, feature_settings(args))
    elif not args.fine_tune:
        valid_loader = cached_valid_loader(model, valid_loader)
    # From here on the processes hold the same weights: after resuming, which loads them.
    network = DistributedDataParallel(model) if world_size() > 1 else model
    with (
        explained(run),
        run_page(args, data, run, device, test_loader or valid_loader) as page,
    ):
        with saver:
            for number, epoch in enumerate(run.epochs_left(args.epochs, args.patience)):
                train_loader.batch_sampler.set_epoch(epoch, totals.batches)
                is_timed = number == 0 and not args.cache_features  # no worker loads those
                batches = timed_epoch(train_loader) if is_timed else train_loader
                batches = progress(batches, "Training", len(train_loader))
                train = train_one_epoch(network, batches, criterion, optimizer, totals, saver)
                batches = saver.between(progress(valid_loader, "Validation"), valid_loader)
                valid = evaluate(model, batches, criterion, resize, num_classes, watch.boundary)
                run.add_epoch(totals.lr, train, valid, model.trained())
                run.write_preview(model, valid_loader.dataset)
                page.update()
                totals.clear()  # what is saved next is the start of the next epoch
                saver(save=True)
        run.save("final_model.pth", model.trained())
        page.finish(test_best(run, model, test_loader, valid_loader, criterion, page))
    print(f"TRAINING COMPLETE: {run.summary()}")


def run_page(
    args: argparse.Namespace, data: SegmentationData, run: RunFolder, device: torch.device,
    scored: DataLoader,
) -> RunPage:  # fmt: skip
    """The page of a run; writes the facts of this start into run.json."""
    started = write_run_facts(run.folder, args.seed, device, bool(args.resume))
    backbone = f"{'fine-tuned' if args.fine_tune else 'frozen'} {args.backbone}"
    return RunPage(
        run.folder, data.classes, scored.dataset.pictures.pairs,
        f"{args.head} head on the {backbone}, trained on {data.source}",
        training_facts(data, scored.dataset.resize.image_size, args.epochs, started),
        run.history, run.watch, not args.no_page,
    )  # fmt: skip


def test_best(
    run: RunFolder, model: SegmentationModel, test_loader: DataLoader | None,
    valid_loader: DataLoader, criterion: Criterion, page: RunPage,
) -> Scores:  # fmt: skip
    """Score the best checkpoint on the test pairs, or without any on the validation pairs.

    Prints the scores, and writes results.csv, the confusion matrix and those of run.json.
    """
    path, what = run.folder / "best_model_iou.pth", "validation pairs, which chose this checkpoint"
    if not from_main(path.is_file):  # resumed from another folder's, and no epoch was better
        path, what = path.with_name("final_model.pth"), "validation pairs"
    best = from_main(lambda: Checkpoint.load(path))
    check_weights(path, best.model_state_dict, model.trained())
    model.load_trained(best.model_state_dict)
    loader = test_loader or valid_loader
    pairs = loader.dataset.pictures.pairs
    if test_loader:
        what = f"{len(pairs)} test pairs"
    own = [pairs[i] for i in own_indices(len(pairs))]
    scores = evaluate(
        model, progress(loader, "Testing"), criterion, loader.dataset.resize,
        run.classes.num_classes, boundary=True,
        observe=lambda labels, target, place: page.add(own[place], labels, target),
    )  # fmt: skip
    if is_main():
        print(write_scores(scores, run.classes, run.folder))
        about = {"checkpoint": path.name, "epoch": best.epoch, "pairs": what}
        write_final_scores(run.folder, run.classes.names, scores, about)
        print(
            f"TESTING {path} (epoch {best.epoch}): loss {scores['loss']:.4f}, pixel accuracy "
            f"{scores['pixel_acc']:.4f}, mIoU {scores['miou']:.4f} on the {what}"
        )
    return scores


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = get_args_parser()
    args = parser.parse_like(argv, own=("out_dir", "resume"))
    with session(args.device) as device:
        check_flags(parser, args, world_size())
        seed_everything(args.seed, args.deterministic)
        with sole_writer(output_folder(args.out_dir)):
            with main_first():
                data = load_data(splits_from_flags(args))
            print(data)
            if args.test_only:
                test_model(args, data, device)
            else:
                train_model(args, data, device)


if __name__ == "__main__":
    main()
