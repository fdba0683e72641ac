"""last.pth: saved while a run trains, and what a run goes on from after it stopped."""

import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from common.checkpoints import Checkpoint, check_weights
from common.distributed import from_main, is_main, largest
from common.job_record import JobRecord
from common.memory import out_of_memory
from common.signals import Stopped, StopSignals
from engine import EpochTotals, NotFinite
from model import SegmentationModel
from training.optimizers import ScheduledOptimizer
from training.run_folder import RunFolder, check_finite
from training.run_info import replace_earlier_run
from utils import InputError

CONTINUE, SAVE, STOP = range(3)  # what to do between two batches
CALMER = "train again with a lower --lr, --clip-grad 1 or --warmup 1"
SMALLER = "train again with half the --batch and twice the --grad-accum, --amp or a smaller --imgsz"


class Checkpointer:
    """Saves last.pth between batches, ends the run after a signal, and resumes such a run.

    Call it between two batches: it saves where `save_every` seconds have passed, and stops after a
    signal that came within the with-block. All processes do the same.
    """

    def __init__(
        self,
        run: RunFolder,
        model: SegmentationModel,
        optimizer: ScheduledOptimizer,
        totals: EpochTotals,
        save_every: float = 600.0,
    ):
        self.run, self.model, self.optimizer, self.totals = run, model, optimizer, totals
        self._save_every = save_every
        self._signals = StopSignals()
        self._saved = time.monotonic()

    def __enter__(self) -> "Checkpointer":
        self._signals.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._signals.__exit__(*error)
        if error[0] is None:
            self()  # for a signal after the last epoch

    def __call__(self, save: bool = False) -> None:
        """Save if it is time, or `save`; raise Stopped after a signal."""
        due = save or time.monotonic() - self._saved > self._save_every
        request = largest(STOP if self._signals.number is not None else SAVE if due else CONTINUE)
        if request != CONTINUE:
            self._save()
        if request == STOP:
            self.run.draw_curves()
            raise Stopped(
                f"stopped after {self._place()}, all is saved; continue with the same command and "
                "--resume",
                largest(self._signals.number or 0),
            )

    def between(self, batches: Iterable[Tensor], loader: Sized) -> Iterator[Tensor]:
        """The batches of loader; between them all processes look for signals together."""
        batches = iter(batches)
        for _ in range(largest(len(loader))):
            self()
            yield from islice(batches, 1)

    def _save(self) -> None:
        trained = self.model.trained()
        check_finite(0.0, trained)  # never replace a good last.pth by a broken one
        state = {
            "job": self.run.job.to_json(),
            "history": self.run.history,
            "optimizer": self.optimizer.state_dict(),
            "totals": self.totals.state_dict(),
            # Nothing else draws from a generator that is not made from seed, epoch and picture.
            "random_states": {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all(),
            },
        }
        self.run.save("last.pth", trained, state)
        self._saved = time.monotonic()

    def _place(self) -> str:
        return f"{len(self.run.history)} epochs and {self.totals.batches} batches"

    def start(self, found: tuple[Path, Checkpoint] | None) -> None:
        """Continue as if the run had never stopped, or start anew. found: what find_last gave."""
        if found is None:
            replace_earlier_run(self.run.folder)
            return
        path, last = found
        check_weights(path, last.model_state_dict, self.model.trained())
        self.model.load_trained(last.model_state_dict)
        try:
            self.run.history[:] = last.training["history"]
            self.optimizer.load_state_dict(last.training["optimizer"])
            self.totals.load_state_dict(last.training["totals"], is_main())
            states = last.training["random_states"]
            torch.set_rng_state(states["torch"])
            if len(states["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(states["cuda"])
        except Exception as error:  # a damaged file fails in many ways
            raise _no_state(path, error) from error
        print(f"continuing after {self._place()} of {path}")


def find_last(
    run: RunFolder, resume: str | bool | None, epochs: int
) -> tuple[Path, Checkpoint] | None:
    """The last.pth to go on from, and its content; None for a run that starts anew.

    resume: a file, True for the folder's own if there is one, or None. Raises InputError for a file
    of another run, or of one that has all epochs.
    """
    if not resume:
        return None
    own = run.folder / "last.pth"
    if resume is True and not from_main(own.is_file):  # a cluster may restart a job at any time
        print(f"{own} does not exist: nothing was saved yet, so this run starts anew")
        return None
    path = own if resume is True else Path(resume)
    return path, from_main(lambda: _load_last(run, path, epochs))


def _load_last(run: RunFolder, path: Path, epochs: int) -> Checkpoint:
    last = Checkpoint.load(path)
    try:
        found = run.checkpoint.difference(last)
        found = found or run.job.difference(JobRecord.from_json(last.training.get("job")))
        history = last.training["history"]
        if [row["epoch"] for row in history] != list(range(1, last.epoch + 1)):
            raise ValueError("its history is not that of its epochs")
        if missing := [name for name in ("lr", "valid_loss") for row in history if name not in row]:
            raise ValueError(f"its history has no {missing[0]}")
    except (TypeError, ValueError, LookupError) as error:
        raise _no_state(path, error) from error
    if found:
        raise InputError(
            f"{path} was made with {found}; resume with the same settings and files, or train "
            "into another --out-dir"
        )
    if len(history) > epochs:
        raise InputError(f"{path} has {len(history)} epochs already; pass a larger --epochs")
    if path.resolve() != (run.folder / "last.pth").resolve():
        _check_best(run.folder, history)
    return last


def _check_best(folder: Path, history: list) -> None:
    """Raise InputError if the folder holds the best checkpoints of a run with another history.

    They would stay, and be scored as this run's, if no later epoch were better.
    """
    for name in ("best_model_iou.pth", "best_model_loss.pth"):
        path = folder / name
        if path.is_file() and Checkpoint.load(path).metrics not in history:
            raise InputError(f"{path} is of another run; move it away, or pass another --out-dir")


@contextmanager
def explained(run: RunFolder) -> Iterator[None]:
    """Turn errors that a user can mend into an InputError: where, what to do, what is saved."""
    try:
        with out_of_memory(SMALLER):
            yield
    except NotFinite as error:
        saved = _saved(run, can_resume=False)
        raise InputError(f"epoch {run.epoch}: {error}; {CALMER}. {saved}") from error
    except (InputError, OSError) as error:  # a picture, the disk, memory, a pipe
        raise InputError(f"epoch {run.epoch}: {error}. {_saved(run)}") from error
    except RuntimeError as error:
        message = str(error)
        if "DataLoader worker" not in message:
            raise
        raise InputError(
            f"epoch {run.epoch}: {message.splitlines()[0]} The system may have run out of memory: "
            f"try fewer --workers or a smaller --batch. {_saved(run)}"
        ) from error


def _saved(run: RunFolder, can_resume: bool = True) -> str:
    last = run.folder / "last.pth"
    if not last.is_file():
        return "Nothing was saved yet."
    if not can_resume:
        return f"{last} is intact."
    return f"{last} is intact; --resume continues from there with the same settings."


def _no_state(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"{path} holds no state to continue from ({reason}); name a last.pth of this version, or "
        "train again without --resume"
    )
