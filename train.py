"""Train a segmentation head on a DINOv2 backbone."""

from collections.abc import Sequence

import commands
import config
from augment import build_augment
from checks import load_data
from datasets import build_loaders, preview_batch
from distributed import main_first, session, world_size
from errors import exits_cleanly
from evaluation import test
from features import cached_loaders, cached_valid_loader
from files import output_folder
from geometry import Resize
from layouts import find_splits
from losses import build_criterion
from model import build_model, fingerprint
from official import start_from_head
from optimizers import build_updater
from predictor import load_predictor
from run_facts import write_run_facts
from runs import Run, checkpoint_header, open_board
from training import Trainer
from utils import amp_dtype, make_deterministic, seed_everything


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = commands.train_parser().parse_args(argv)
    with session(args.device) as device:
        commands.check_training(args, world_size())
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

        classes = data.classes
        resize = Resize(args.imgsz or config.TRAIN_SIZE, args.keep_ratio)
        augment = build_augment(args.augment, resize, args.seed)
        pinned = device.type == "cuda"
        loaders = build_loaders(data, resize, augment, args.batch, args.workers, args.seed, pinned)
        preview, _ = preview_batch(loaders[1].dataset, 4)

        spec = commands.model_config(args, classes.num_classes)
        with main_first():
            model = build_model(spec).to(device)
        header = checkpoint_header(spec, fingerprint(model.backbone), classes, resize)
        if args.init_head:
            print(start_from_head(args.init_head, spec, model.head, classes))
        model.set_up_training(args.unfreeze_blocks, args.checkpoint_activations, args.compile)
        amp = amp_dtype(device) if args.amp else None
        options = commands.updater_options(args, len(loaders[0]))
        updater = build_updater(model, device, amp, **options)
        pixels = data.pixels("train") if args.class_weights == "auto" else None
        criterion = build_criterion(args.loss, pixels, device)

        if args.cache_features:
            facts = commands.feature_facts(args)
            loaders = cached_loaders(model, loaders, args.cache_features, facts, device, amp)
        elif not args.fine_tune:
            loaders = loaders[0], cached_valid_loader(model, loaders[1], device, amp) or loaders[1]
        recipe = commands.recipe(args, world_size()) | {"pictures": data.digest}
        run = Run(output_folder(args.out_dir), header, recipe)
        trainer = Trainer(
            model, *loaders, updater, criterion, resize, device, run, preview, data.splits.train,
            save_every=60 * args.save_every,
        )  # fmt: skip
        if args.resume:
            trainer.resume(args.resume, args.epochs)
        if args.tensorboard:
            run.board = open_board(run.folder, len(run.rows))
        write_run_facts(run.folder, args.seed, device, bool(args.resume))
        trainer.fit(args.epochs, args.patience)
        run.save("final_model.pth", model.trained())
        print(trainer.test())
        print(f"TRAINING COMPLETE: {run.summary()}")


if __name__ == "__main__":
    main()
