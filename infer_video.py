"""Segment a video with a trained checkpoint or a published head."""

import argparse
import sys
import time
from collections.abc import Sequence

from common.exits import exits_cleanly
from common.flags import add_inference_flags, predictor_options
from common.parser import Parser, number, positive_int, some_of
from common.pipeline import overlapping, speed
from common.signals import Stopped, StopSignals
from inference.frames import Smoother, map_frames
from predictor import list_models, load_predictor
from results.pages.video import VideoPage
from results.video_files import VIDEO_ENDINGS, VideoResults, draw_frame
from utils import InputError, output_folder, progress, select_device
from video.reader import VideoReader


def seconds(text: str) -> float:
    """Seconds, or hours, minutes and seconds with colons between them."""
    parts = text.split(":")
    try:
        value = sum(float(part) * 60**place for place, part in enumerate(reversed(parts)))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6 or len(parts) > 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; give 75.5 or 1:15.5")
    return value


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Segment a video.")
    add_inference_flags(parser, "inference_results_video", batch=4)
    parser.add_argument("--input", help="a video file, a webcam's number or an rtsp/http address")
    clip = parser.add_argument_group("part of the video")
    clip.add_argument("--start", type=seconds, default=0.0, help="start, in seconds or h:m:s")
    clip.add_argument("--duration", type=seconds,
        help="length, in seconds or h:m:s; default: to the end")
    clip.add_argument("--every", type=positive_int, default=1, metavar="N",
        help="segment every Nth frame and show its classes until the next")
    clip.add_argument("--smooth", type=number(0, below=1), default=0.0, metavar="S",
        help="against flicker: probabilities are S x their running mean + (1 - S) x the new "
        "frame's, restarted at scene cuts; 0 (off) to below 1")
    kept = parser.add_argument_group("results")
    kept.add_argument("--save", type=some_of(*VIDEO_ENDINGS), default=("overlay",),
        metavar="KINDS",
        help="of overlay, mask (class colours), side-by-side (all MP4), csv (each class's share of "
        "each frame), joined by commas")
    kept.add_argument("--crf", type=number(0, 51, whole=True), default=18,
        help="quality, 0 (lossless) to 51 (worst), of libx264, libx265 and libsvtav1; "
        "other codecs are given a bit rate")
    kept.add_argument("--codec", default="libx264", help="FFmpeg's name of the encoder")
    return parser
# fmt: on


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = get_args_parser().parse_args(argv)
    if args.list_models:
        print(list_models())
        return
    if args.input is None:
        raise InputError("--input is missing; give a video file, a webcam's number or an address")
    device = select_device(args.device)
    predictor = load_predictor(args.model, device, predictor_options(args))
    if predictor.value_range:
        print(
            f"warning: the model learned from pictures in which {predictor.value_range} become "
            "black to white, but films are read by the whole range of their bits; for films of "
            "more than 8 bits, give single frames to infer_image.py",
            file=sys.stderr,
        )
    classes = predictor.classes
    folder = output_folder(args.out_dir)

    started, predict = time.perf_counter(), predictor.predict
    smoother = Smoother(args.smooth, args.min_confidence) if args.smooth else None
    facts = {"model": args.model, "device": str(device), "codec": args.codec}
    with (
        StopSignals("closing the files", noted=2) as signals,
        VideoReader(args.input, args.start, args.duration) as reader,
        overlapping(
            iter(reader),
            lambda frames: map_frames(frames, predict, args.batch, args.every, smoother),
            lambda maps: ((m, draw_frame(m, classes, args.save, args.alpha)) for m in maps),
            ahead=args.batch,
            stop=lambda: signals.number is not None,
        ) as drawn_frames,
        VideoPage(folder, classes, facts, not args.no_page) as page,
        VideoResults(folder, reader, classes, args.save, args.crf, args.codec) as results,
        progress(None, "Segmenting", reader.num_frames) as bar,
    ):
        for mapped, drawn in drawn_frames:
            results.write(mapped, drawn)
            page.add(results.paths, mapped)
            bar.update()
        page.interrupted = signals.number is not None or bool(reader.lost)
    print(results.summary())
    print(speed(results.num_frames, "frames", started, predictor.compile_seconds))
    if signals.number is not None:
        raise Stopped(f"stopped after {results.num_frames} frames, which are kept", signals.number)
    if reader.lost:
        raise InputError(f"{reader.name}: {reader.lost}; what came before is kept")


if __name__ == "__main__":
    main()
