"""What a user did wrong, told in one line."""

import functools
import os
import re
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something outside the program is not as it must be: what was found, expected, and to do."""

    def __init__(self, message: str):
        # From a DataLoader's worker it comes back with the worker's traceback, the message last.
        if message.startswith("Caught ") and "Traceback" in message:
            message = re.split(r"\n[\w.]+: ", message)[-1].strip()
        super().__init__(message)


class Stopped(Exception):
    """The user or the system asked the program to end, and it has put its work away."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as shells report it


def exits_cleanly(main: Callable) -> Callable:
    """Turn errors that a user can mend into one line on stderr and exit code 1, Ctrl-C into 130."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except InputError as error:
            sys.exit(f"error: {error}")
        except Stopped as stop:
            _leave(str(stop), stop.exit_code)
        except KeyboardInterrupt:
            _leave("interrupted", 130)

    return wrapper


def _leave(message: str, exit_code: int) -> None:
    if os.environ.get("RANK", "0") == "0":  # torchrun's other processes would say the same
        print(f"\n{message}", file=sys.stderr)
    sys.exit(exit_code)
