"""How a script ends: errors, signals and closed pipes as one line and an exit code."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from common.memory import is_out_of_memory
from common.signals import Stopped, raised_signals, tell
from utils import InputError

CLOSED_PIPE = 141  # what shells report for SIGPIPE


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate the `main` of a script.

    An InputError becomes a line on stderr and exit code 1; a signal becomes a line and exit code
    128 + its number, as shells report it; output that nobody reads any more becomes code 141; out
    of memory becomes a line where the job has none of its own.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError):  # a notebook's streams take any text
                stream.reconfigure(errors="backslashreplace")  # what an encoding lacks is escaped
        try:
            with raised_signals():
                main(*args, **kwargs)
                print(end="", flush=True)  # where a closed pipe is told, if not before
        except InputError as error:
            sys.exit(f"error: {error}")
        except Stopped as stop:
            tell(f"\n{stop}\n")
            sys.exit(128 + stop.number)
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            name = signal.Signals(number).name
            tell("\ninterrupted\n" if number == signal.SIGINT else f"\nended by {name}\n")
            sys.exit(128 + number)
        except BrokenPipeError:
            # Python would complain at its end about what is still to be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(CLOSED_PIPE)
        except Exception as error:
            if is_out_of_memory(error):
                sys.exit("error: out of memory; pass a smaller --batch or --imgsz")
            raise

    return wrapper


def open_closed_streams() -> None:
    """Let streams that were closed before the start, as services do, lead nowhere.

    Else the next file that is opened would get the number of stderr, and its messages.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
