"""Train a segmentation head on a DINOv2 backbone."""

from collections.abc import Sequence

import commands
import config
from augment import build_augment
from checks import load_data
from datasets import build_loaders, preview_batch
from engine import build_optimizer, evaluate, predict_labels, train_one_epoch
from errors import exits_cleanly
from evaluation import test
from files import output_folder
from geometry import Resize
from layouts import find_splits
from losses import build_criterion
from model import build_model, fingerprint
from official import start_from_head
from predictor import load_predictor
from runs import Run, checkpoint_header, iou_table
from utils import progress, seed_everything, select_device


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = commands.train_parser().parse_args(argv)
    seed_everything(args.seed)
    device = select_device(args.device)
    folders = (args.train_images, args.train_masks, args.valid_images, args.valid_masks)
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
    pictures, targets = preview_batch(valid_loader.dataset, 4)

    classes = data.classes
    spec = commands.model_config(args, classes.num_classes)
    model = build_model(spec).to(device)
    if args.init_head:
        print(start_from_head(args.init_head, spec, model.head, classes))
    milestones = args.scheduler_epochs if args.scheduler else []
    optimizer, scheduler = build_optimizer(model, args.lr, milestones)
    pixels = data.pixels("train") if args.class_weights == "auto" else None
    criterion = build_criterion(args.loss, pixels, device)

    header = checkpoint_header(spec, fingerprint(model.backbone), classes, resize)
    run = Run(output_folder(args.out_dir), header, commands.recipe(args))
    if args.resume:
        run.resume(args.epochs, model, optimizer, scheduler)
    for epoch in range(len(run.rows) + 1, args.epochs + 1):
        print(f"EPOCH: {epoch} of {args.epochs}")
        train_loader.sampler.epoch = epoch
        batches = progress(train_loader, "Training")
        train_scores = train_one_epoch(
            model, batches, optimizer, classes.num_classes, device, criterion, args.amp
        )
        batches = progress(valid_loader, "Validation")
        valid_scores = evaluate(model, batches, classes.num_classes, resize, device, criterion)
        run.record(scheduler.get_last_lr()[0], train_scores, valid_scores, model.trained())
        run.save_preview(pictures, targets, predict_labels(model, pictures.to(device)).cpu())
        scheduler.step()
        print(f"Learning rate of the next epoch: {scheduler.get_last_lr()[0]:g}")
        run.save_last(model.trained(), optimizer, scheduler)
    run.save("final_model.pth", model.trained())
    print(iou_table(classes.names, valid_scores["iou"]))
    print(f"TRAINING COMPLETE: {run.summary()}")


if __name__ == "__main__":
    main()
