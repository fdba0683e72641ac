"""Train a segmentation head on a DINOv2 backbone."""

from collections.abc import Sequence
from pathlib import Path

import commands
import config
from augment import build_augment
from checks import load_data
from datasets import build_loaders, preview_batch
from distributed import main_first, session, world_size
from errors import exits_cleanly
from evaluation import test
from files import output_folder
from geometry import Resize
from layouts import find_splits
from losses import build_criterion
from model import build_model, fingerprint
from official import start_from_head
from optimizers import Updater, build_optimizer, build_schedule
from predictor import load_predictor
from run_facts import write_run_facts
from runs import Run, checkpoint_header, open_board
from training import Trainer
from utils import amp_dtype, make_deterministic, seed_everything


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = commands.train_parser().parse_args(argv)
    commands.check_training(args)
    with session(args.device) as device:
        seed_everything(args.seed)
        if args.deterministic:
            make_deterministic()
        folders = (args.train_images, args.train_masks, args.valid_images, args.valid_masks)
        with main_first():
            data = load_data(find_splits(args.data, folders, args.valid_fraction, args.classes))
        print(data)
        if args.test_only:
            predictor = load_predictor(args.model, device, **commands.predictor_options(args))
            print(test(predictor, data, output_folder(args.out_dir)))
            return

        resize = Resize(args.imgsz or config.TRAIN_SIZE, args.keep_ratio)
        train_loader, valid_loader = build_loaders(
            data, resize, build_augment(args.augment, resize, args.seed), args.batch, args.workers,
            args.seed, pin_memory=device.type == "cuda",
        )  # fmt: skip
        spec = commands.model_config(args, data.classes.num_classes)
        with main_first():
            model = build_model(spec).to(device)
        if args.init_head:
            print(start_from_head(args.init_head, spec, model.head, data.classes))
        header = checkpoint_header(spec, fingerprint(model.backbone), data.classes, resize)
        model.set_up_training(args.unfreeze_blocks, args.checkpoint_activations, args.compile)
        pixels = data.pixels("train") if args.class_weights == "auto" else None
        criterion = build_criterion(args.loss, pixels, device)

        backbone_lr, layer_decay = args.backbone_lr or args.lr / 10, args.layer_decay or 1.0
        optimizer = build_optimizer(model, args.lr, backbone_lr, layer_decay)
        steps_per_epoch = -(-len(train_loader) // args.grad_accum)
        milestones = commands.milestones(args)
        schedule = build_schedule(optimizer, steps_per_epoch, args.warmup, milestones)
        amp = amp_dtype(device) if args.amp else None
        updater = Updater(optimizer, schedule, device, amp, args.grad_accum, args.clip_grad)

        folder = output_folder(args.out_dir)
        run = Run(folder, header, commands.recipe(args, world_size()))
        pictures, targets = preview_batch(valid_loader.dataset, 4)
        trainer = Trainer(
            model, train_loader, valid_loader, updater, criterion, resize, device, run,
            (pictures, pictures, targets), data.splits.train, save_every=60 * args.save_every,
        )  # fmt: skip
        if args.resume:
            trainer.resume(
                folder / "last.pth" if args.resume is True else Path(args.resume), args.epochs
            )
        if args.tensorboard:
            run.board = open_board(folder, len(run.rows))
        write_run_facts(folder, args.seed, device)
        trainer.fit(args.epochs, args.patience)
        run.save("final_model.pth", model.trained())
        print(trainer.test())
        print(f"TRAINING COMPLETE: {run.summary()}")


if __name__ == "__main__":
    main()
