"""Segment a video with a trained checkpoint."""

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import config
from errors import exits_cleanly
from files import output_folder
from images import overlay
from official import list_models
from predictor import load_predictor
from utils import progress, select_device
from video import VideoReader
from video_writer import VideoWriter


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = config.infer_video_parser().parse_args(argv)
    if args.list_models:
        print(list_models())
        return
    device = select_device(args.device)
    options = config.predictor_options(args)
    predictor = load_predictor(args.model, device, args.min_confidence, **options)
    folder = output_folder(args.out_dir)
    target = folder / f"{Path(args.input).stem}.mp4"

    started, count = time.perf_counter(), 0
    with VideoReader(args.input) as reader, VideoWriter(target, reader) as writer:
        bar = progress(None, "Segmenting", reader.num_frames)
        frames = iter(reader)
        while batch := list(islice(frames, args.batch)):
            predictions = predictor.predict([frame.image for frame in batch])
            for frame, prediction in zip(batch, predictions, strict=True):
                drawn = overlay(frame.image, prediction.labels, predictor.classes, args.alpha)
                writer.write(drawn, frame.time, frame.duration)
            count += len(batch)
            bar.update(len(batch))
        bar.close()
    seconds = time.perf_counter() - started
    print(f"{target}: {count} frames in {seconds:.1f} s, {count / seconds:.2f} frames per second")
    print("(wall clock: decoding, model, drawing and encoding)")


if __name__ == "__main__":
    main()
