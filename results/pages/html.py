"""A page as a file: its template, our style and script in it, and when it is written anew."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common import distributed
from common.signals import Stopped
from config import OUTPUTS
from utils import CLOCK, InputError, command_line, without_secrets, write_atomically

TEMPLATES = Path(__file__).with_name("templates")
RUNNING, COMPLETE, INTERRUPTED, FAILED = "running", "complete", "interrupted", "failed"
STATES = {
    RUNNING: "Running, or killed; reload the page to see",
    COMPLETE: "Complete",
    INTERRUPTED: "Interrupted: this is what was done until then",
    FAILED: "Ended with an error",
}
LARGEST_SHARE = 0.0025  # of a job's time that goes into writing its page anew


class Page:
    """index.html of an output folder, there from the start of a job and true at its end.

    The with-block is the job: the page says whether it runs, was interrupted, failed, or is
    complete. Under torchrun the main process alone writes. A subclass gives the text.

    wanted: False writes nothing, and removes the page of an earlier job, whose results are gone.
    interrupted: set it where a job ends early without an exception.
    """

    kind = ""

    def __init__(self, folder: Path, wanted: bool = True):
        self.folder, self.wanted, self.interrupted = folder, wanted, False
        self.path = folder / "index.html"
        self.started = time.time()
        self._written = self._cost = 0.0  # seconds
        self._error = ""

    def text(self, state: str) -> str:
        raise NotImplementedError

    def __enter__(self) -> "Page":
        if not self.wanted and distributed.is_main():
            with suppress(OSError):
                self.path.unlink()
        self.update()
        return self

    def __exit__(self, _, error: BaseException | None, *__) -> None:
        state = INTERRUPTED if error or self.interrupted else COMPLETE
        if isinstance(error, Exception) and not isinstance(error, Stopped):
            name = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            state, self._error = FAILED, without_secrets(f"{name}{error}")
        try:
            self._write(state)
        except InputError as problem:
            if state != FAILED:  # else the job's own error is the one to read
                print(f"warning: {problem}", file=sys.stderr)

    def wrote(self, path: Path) -> bool:
        """Whether this job, and not an earlier one into the same folder, wrote a file."""
        with suppress(OSError):
            return path.stat().st_mtime >= self.started - CLOCK
        return False

    def update(self) -> None:
        """Write the page anew, unless that would take more than LARGEST_SHARE of the time."""
        if time.monotonic() - self._written > self._cost / LARGEST_SHARE:
            with suppress(InputError):  # its end will say so
                self._write(RUNNING)

    def render(
        self, template: str, state: str, statement: str, facts: Mapping[str, str],
        files: Sequence[tuple[str, str]], **values,
    ) -> str:  # fmt: skip
        """The text of a page; what templates insert is escaped.

        state: a key of STATES. facts: short texts by name. files: (name, address) of what lies
        beside. values: what else the template takes.
        """
        inside = OUTPUTS in self.folder.parents
        heading = {
            "kind": self.kind,
            "title": str(self.folder.relative_to(OUTPUTS) if inside else self.folder),
            "statement": statement,
            "state": state,
            "error": self._error,
            "facts": {
                "command": f"python {command_line()}",
                "time": duration(time.time() - self.started),
            },
            "files": files,
        }
        heading["facts"] |= facts
        return _environment().get_template(template).render(heading=heading, **values)

    def _write(self, state: str) -> None:
        if not self.wanted or not distributed.is_main():
            return
        started = time.monotonic()
        write_atomically(self.path, self.text(state).encode("utf-8", "replace"))
        self._written = time.monotonic()
        self._cost = self._written - started


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        optimized=False,  # each template is drawn few times, so this would cost more than it saves
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "score": score}
    environment.globals["states"] = STATES
    for name in ("page.css", "page.js"):
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        environment.globals[name.replace(".", "_")] = Markup(text)  # ours: nothing to escape
    return environment


def percent(share: float) -> str:
    """0..1 as people read it: 7.3 %, 42 %."""
    return f"{100 * share:.{0 if share >= 0.0995 or share == 0 else 1}f} %"


def score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 5 s` or `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
