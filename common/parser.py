"""The parser class and the value types of flags."""

import argparse
import json
import re
import shlex
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from math import inf, nan
from pathlib import Path
from typing import NoReturn

from config import VERSION
from utils import InputError, without_secrets


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults as they would be typed, except those that say nothing."""

    def _get_help_string(self, action):
        if action.default in (None, False, "") or "default" in action.help:
            return action.help
        if isinstance(action.default, tuple | list):
            joint = "," if isinstance(action.default[0], str) else " "
            return f"{action.help} (default: {joint.join(map(str, action.default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Has --version; says what is wrong in one line, where argparse prints the usage first."""

    def __init__(self, description: str):
        epilog = "Paths are relative to the working directory, those of outputs/ and input/ too."
        super().__init__(description=description, epilog=epilog, formatter_class=HelpFormatter)
        version = f"%(prog)s {VERSION}"
        self.add_argument("--version", action="version", version=version, help="print the version")

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if flags := [text.split("=")[0] for text in unknown if text.startswith("-")]:
            nearest = get_close_matches(flags[0], self._option_string_actions, 1)
            question = f"; did you mean {nearest[0]}?" if nearest else ""
            self.error(f"unknown flag {flags[0]}{question}")
        if unknown:
            self.error(f"unexpected {unknown[0]!r}: which flag does it belong to?")
        for name, value in vars(parsed).items():
            # An address may hold a password, which would stand in folder names and pages.
            if name != "input" and re.match(r"\w[\w+.-]+:/", str(value)):
                flag = f"--{name.replace('_', '-')}"
                self.error(f"{flag}: {value} is an address; give a name or a path here")
        return parsed

    def parse_like(self, argv: Sequence[str] | None, own: Sequence[str]) -> argparse.Namespace:
        """parse_args; with --like FILE the defaults, but for `own`, are the flags of that run."""
        args = self.parse_args(argv)
        if not args.like:
            return args
        try:
            command = json.loads(Path(args.like).read_bytes())[-1]["command"]
            flags = vars(self.parse_like(shlex.split(command)[1:], own))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as bad:
            raise InputError(f"--like {args.like}: no run.json of another run ({bad})") from bad
        self.set_defaults(**{name: value for name, value in flags.items() if name not in own})
        return self.parse_args(argv)

    def refuse_given(self, args: argparse.Namespace, flags: Sequence[str], reason: str) -> None:
        """Raise InputError if one of the flags, such as --tile, has not its default value."""
        for flag in flags:
            name = _name_of(flag)
            if getattr(args, name) != self.get_default(name):
                raise InputError(f"{flag} {reason}")

    def refuse_without(self, args: argparse.Namespace, needed: str, flags: Sequence[str]) -> None:
        """Raise InputError for one of the flags that was given without the flag that it needs."""
        if not getattr(args, _name_of(needed)):
            self.refuse_given(
                args, flags, f"has no effect without {needed}; add that, or leave it out"
            )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {without_secrets(message)} (--help shows all flags)\n")


def _name_of(flag: str) -> str:
    return flag.strip("-").replace("-", "_")


# -- value types -----------------------------------------------------------------------------------


def number(
    low: float = -inf,
    high: float = inf,
    *,
    above: float = -inf,
    below: float = inf,
    whole: bool = False,
) -> Callable[[str], float]:
    """An argparse type: finite numbers x with low <= x <= high and above < x < below."""
    limits = {"at least": low, "above": above, "at most": high, "below": below}
    given = [f"{word} {limit:.10g}" for word, limit in limits.items() if abs(limit) < inf]
    expected = f"a {'whole ' if whole else ''}number {' and '.join(given)}".rstrip()

    def parse(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = nan  # within no limits
        if not (low <= value <= high and above < value < below):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


positive_int = number(1, whole=True)


def some_of(*known: str) -> Callable[[str], tuple[str, ...]]:
    """An argparse type: some of the known kinds, joined by commas, without repetitions."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(text.split(",")))
        if not set(chosen) <= set(known):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, not {text}")
        return chosen

    return parse


class ImageSize(argparse.Action):
    """`W H`, or one number for both, as (height, width)."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) > 2:
            parser.error(f"argument {option_string}: expected W H or one number, not {values}")
        setattr(namespace, self.dest, (values[-1], values[0]))
