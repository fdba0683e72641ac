"""What a user did wrong, told in one line."""

import functools
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something outside the program is not as it must be: what was found, expected, and to do."""


def exits_cleanly(main: Callable) -> Callable:
    """Turn errors that a user can mend into one line on stderr and exit code 1, Ctrl-C into 130."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except (InputError, FloatingPointError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(130)

    return wrapper
