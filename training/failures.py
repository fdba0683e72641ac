"""What can go wrong while a run trains, as one line: where, what to do, what is saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.memory import out_of_memory
from engine import NotFinite
from training.run_folder import RunFolder
from utils import InputError

REMEDY = "train again with a lower --lr, --clip-grad 1 or --warmup 1"


@contextmanager
def explained(run: RunFolder, batch: int, grad_accum: int) -> Iterator[None]:
    """Turn errors of a run that a user can mend into an InputError."""
    last = run.folder / "last.pth"
    try:
        with out_of_memory(_smaller(batch, grad_accum, *run.checkpoint.image_size)):
            yield
    except NotFinite as error:
        saved = _saved(last, can_resume=False)
        raise InputError(f"epoch {run.epoch}: {error}; {REMEDY}. {saved}") from error
    except (InputError, OSError) as error:  # a picture, the disk, memory, a pipe
        raise InputError(f"epoch {run.epoch}: {error}. {_saved(last)}") from error
    except RuntimeError as error:
        message = str(error)
        if "DataLoader worker" not in message:
            raise
        raise InputError(
            f"epoch {run.epoch}: {message.splitlines()[0]} The system may have run out of memory: "
            f"try fewer --workers or a smaller --batch. {_saved(last)}"
        ) from error


def _smaller(batch: int, grad_accum: int, height: int, width: int) -> str:
    """What to do when a batch of that many pictures per process does not fit into memory."""
    change = "--amp"
    if batch > 1:
        change = f"--batch {batch // 2} --grad-accum {2 * grad_accum}"
    return (
        f"--batch {batch} --imgsz {width} {height} is too large here: train again with "
        f"{change}, or with --imgsz {width * 2 // 3} {height * 2 // 3}"
    )


def _saved(last: Path, can_resume: bool = True) -> str:
    if not last.is_file():
        return "Nothing was saved yet."
    if not can_resume:
        return f"{last} is intact."
    return f"{last} is intact; --resume continues from there with the same settings."
