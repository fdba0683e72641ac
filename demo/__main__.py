"""Draw the demo's data set and video, or train the tiny backbone's weights (`--pretrain`)."""

from collections.abc import Sequence
from pathlib import Path

from common.exits import exits_cleanly
from common.flags import add_shared
from common.parser import Parser
from config import INPUTS, THIS_REPO
from demo import demo_files
from demo.pretraining import pretrain
from utils import select_device

FOLDER = INPUTS / "demo"
WEIGHTS = Path(THIS_REPO) / "weights" / "dinov2_vitt14.pth"


# fmt: off
def get_args_parser() -> Parser:
    parser = Parser("Draw the demo's data set and video into input/demo.")
    parser.add_argument("--pretrain", action="store_true",
        help="instead, train the weights of dinov2_vitt14 again (about an hour on two cores)")
    add_shared(parser, "--device", "--workers")
    return parser
# fmt: on


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = get_args_parser()
    args = parser.parse_args(argv)
    if args.pretrain:
        pretrain(WEIGHTS, select_device(args.device), args.workers)
        return
    parser.refuse_without(args, "--pretrain", ("--device", "--workers"))
    demo_files.draw_data(FOLDER, demo_files.SPLITS)
    demo_files.draw_video(FOLDER / "walkers.mp4")
    print(f"drew pictures, masks and a video into {FOLDER}")


if __name__ == "__main__":
    main()
