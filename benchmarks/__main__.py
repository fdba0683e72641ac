"""Time training and inference, relative to the backbone's forward pass and the usual loop."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import config
from benchmarks.jobs import Workload, sample_data, script_seconds, write_inputs
from benchmarks.table import Bench, count_flops, machine, matrix_rate
from common.exits import exits_cleanly
from common.flags import add_image_size, add_model_flags, add_shared
from common.parser import Parser, positive_int
from data.augment import build_augment
from data.transforms import Resize
from datasets import build_loaders
from model import HEADS, build_model
from networks.weights import fingerprint
from training.run_folder import describe_model
from utils import (
    amp_dtype,
    cpu_computes_in,
    output_folder,
    seed_everything,
    select_device,
    write_atomically,
)

RECIPE_EPOCHS = 65  # of the articles' person segmentation
INFERRED_BATCHES = 8  # at least, as the stages of a script overlap only over many batches
LIMIT = "backbone forward"
RUNTIMES = (
    ("torch", torch.bfloat16), ("openvino", torch.float32), ("openvino", torch.bfloat16),
)  # fmt: skip
USUAL = {
    "train step": "train step, usual",
    "head step": "head step, usual",
    "cached train step": "train step, usual",
    "evaluation": "evaluation, usual",
    "cached evaluation": "evaluation, usual",
}


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Time training and inference with random weights, into one table.")
    parser.add_argument("--data", type=Path, metavar="DIR",
        help="data set; default: pictures drawn for it")
    add_model_flags(parser, HEADS, "none")
    add_image_size(parser, (640, 640))
    parser.add_argument("--batch", type=positive_int, default=4, help="pictures per step")
    parser.add_argument("--pictures", type=positive_int, default=8, help="pictures per job")
    parser.add_argument("--rounds", type=positive_int, default=3,
        help="times that each job runs; the median counts")
    parser.add_argument("--runtimes", action="store_true",
        help="time the forward pass, the features and the video by OpenVINO and in bfloat16 too "
        "(on a CPU)")
    add_shared(parser, "--device", "--workers", "--seed")
    parser.add_argument("--amp", action="store_true",
        help="mixed precision, but for the usual loop")
    parser.add_argument("--compile", action="store_true", help="compile the backbone")
    parser.add_argument("--json", action="store_true",
        help="write outputs/benchmark/benchmark.json too")
    return parser
# fmt: on


def report(bench: Bench, num_train: int, num_valid: int) -> dict[str, float]:
    """The ratios to watch, for a data set of num_train and num_valid pictures."""
    seconds = {name: job.median for name, job in bench.jobs.items()}

    def epoch(train: str, valid: str) -> float:
        return num_train * seconds[train] + num_valid * seconds[valid]

    recipe = RECIPE_EPOCHS * epoch("train step, usual", "evaluation, usual")
    cached = epoch("cached train step", "cached evaluation")
    ratios = {
        "train step / (forward + head step)": seconds["train step"]
        / (seconds[LIMIT] + seconds["head step"]),
        "head step / usual head step": seconds["head step"] / seconds["head step, usual"],
        "hours of the usual recipe": recipe / 3600,
    }
    for name in ("forward", "features", "video"):
        usual = seconds[LIMIT if name == "forward" else name]
        for job in (job for job in seconds if job.startswith(f"{name}, ")):
            ratios[f"{name} / {job}"] = usual / seconds[job]
    for views in (1, 4):
        count = views * num_train + num_valid
        ours = count * seconds["features"] + RECIPE_EPOCHS * cached
        ratios[f"minutes of the recipe with {views} cached views"] = ours / 60
        ratios[f"usual recipe / recipe with {views} cached views"] = recipe / ours
    return ratios


def chip_report(workload: Workload, forward_seconds: float) -> dict[str, float]:
    """The forward pass's share of the device's matrix rate."""
    flops = count_flops(workload.extract) / workload.batch_size
    rate = matrix_rate(workload.device, workload.model.amp or torch.float32)
    return {
        "forward, TFLOP/s": flops / forward_seconds / 1e12,
        "large matrix product, TFLOP/s": rate / 1e12,
        "share of it": flops / forward_seconds / rate,
    }


def add_jobs(bench: Bench, workload: Workload, batch_size: int) -> None:
    count, num_valid = workload.pictures, len(workload.loaders[1].dataset)
    repeated = workload.num_batches * batch_size
    bench.add(LIMIT, repeated, workload.forward)
    bench.add("train step, usual", count, workload.train_as_usual)
    bench.add("train step", count, lambda: workload.train(workload.loaders[0]))
    bench.add("head step, usual", repeated, workload.step_as_usual)
    bench.add("head step", repeated, lambda: workload.train(workload.head_batches))
    for head in ("sharp", "mask"):
        bench.add(f"head step, {head}", repeated, workload.steps_of(head))
    bench.add("features", count + num_valid, workload.compute_features)
    bench.add("cached train step", count, lambda: workload.train(workload.cached[0]))
    bench.add("evaluation, usual", num_valid, workload.evaluate_as_usual)
    bench.add("evaluation", num_valid, lambda: workload.evaluate(workload.loaders[1]))
    bench.add("cached evaluation", num_valid, lambda: workload.evaluate(workload.cached[1]))


def expected_minutes(bench: Bench, workload: Workload, rounds: int) -> float:
    """Of all rounds, from one timed forward pass: what follows the backbone takes little."""
    started = time.perf_counter()
    workload.extract()[0, 0, 0, 0].item()  # waits for a GPU
    seconds = (time.perf_counter() - started) / workload.batch_size
    pictures = sum(
        job.pictures for job in bench.jobs.values() if not job.name.startswith(("head", "cached"))
    )
    return (rounds + 1) * pictures * seconds / 60


def add_runtime_jobs(bench: Bench, workload: Workload, count: int, video_seconds: Callable) -> None:
    """The forward pass, the features and a video of `count` frames, by each runtime of a CPU.

    But for number types that the CPU has no arithmetic for, with a line for each.
    """
    num_features = workload.pictures + len(workload.loaders[1].dataset)
    for runtime, dtype in RUNTIMES:
        name = f"{runtime} {str(dtype).removeprefix('torch.')}"
        if not cpu_computes_in(dtype):
            print(f"left out: {name}, for which this CPU has no arithmetic")
            continue
        repeated = workload.num_batches * workload.batch_size
        forward, features = workload.jobs_by(runtime, dtype)
        bench.add(f"forward, {name}", repeated, forward)
        bench.add(f"features, {name}", num_features, features)
        flags = ["--runtime", runtime, "--dtype", name.split()[1]]
        bench.add(f"video, {name}", count, partial(video_seconds, *flags))


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = get_args_parser().parse_args(argv)
    seed_everything(args.seed)
    device = select_device(args.device)
    folder = output_folder("benchmark")
    data, num_train, num_valid = sample_data(args.data, args.pictures, folder)
    classes, hub_repo = data.classes, args.hub_repo
    if hub_repo is None and not args.backbone.startswith(config.TIMM):
        hub_repo = config.THIS_REPO  # random weights need no download of code either
    spec = config.ModelConfig(args.backbone, args.head, classes.num_classes, args.weights, hub_repo)
    model = build_model(spec).to(device)
    resize = Resize(args.imgsz, input_format=model.input_format)
    *loaders, _ = build_loaders(
        data, resize, build_augment("articles", resize, args.seed), args.batch, args.workers,
        args.seed, pin_memory=device.type == "cuda",
    )  # fmt: skip
    amp = amp_dtype(device) if args.amp else None
    model.set_up_training(None, False, args.compile, amp)
    workload = Workload(model, loaders, resize, classes.num_classes)

    checkpoint = describe_model(spec, fingerprint(model.backbone), classes, resize)
    replace(checkpoint, model_state_dict=model.trained()).save(folder / "model.pth")
    flags = ["--model", folder / "model.pth", "--batch", args.batch, "--device", device]
    flags += ["--out-dir", "benchmark/results", *(["--hub-repo", hub_repo] if hub_repo else [])]
    flags += ["--dtype", str(amp).removeprefix("torch.")] if amp else []
    count = max(workload.pictures, INFERRED_BATCHES * args.batch)
    pictures, video = write_inputs(data, count, folder)

    bench = Bench(device)
    add_jobs(bench, workload, args.batch)
    scripts = {"picture folder": ("infer_image.py", pictures), "video": ("infer_video.py", video)}
    for name, (script, source) in scripts.items():
        bench.add(name, count, partial(script_seconds, script, source, *flags))
    if args.runtimes:
        seconds = partial(script_seconds, "infer_video.py", video, *flags)
        add_runtime_jobs(bench, workload, count, seconds)
    minutes = expected_minutes(bench, workload, args.rounds)
    rounds = f"{args.rounds} rounds and one to warm up"
    print(f"{len(bench.jobs)} jobs, {rounds}: about {minutes:.0f} min", flush=True)
    bench.run(args.rounds)

    figures = report(bench, num_train, num_valid)
    figures |= chip_report(workload, bench.jobs[LIMIT].median)
    print(f"\n{args.backbone}, {resize.image_size} pixels, batch {args.batch}: {machine(device)}")
    print(bench.table(LIMIT, USUAL))
    print("\n".join(f"{name}: {value:.3f}" for name, value in figures.items()))
    if args.json:
        settings = {name: str(value) for name, value in vars(args).items()}
        content = {"machine": machine(device), "settings": settings}
        content["jobs"] = {
            name: {"seconds per picture": job.seconds, "peak bytes": job.peak_bytes}
            for name, job in bench.jobs.items()
        }
        content["figures"] = figures
        write_atomically(folder / "benchmark.json", json.dumps(content, indent=2).encode())


if __name__ == "__main__":
    main()
