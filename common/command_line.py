# SPDX-License-Identifier: Apache-2.0
"""The argument parser of all scripts, and types for its arguments. No slow imports, so that `--help` is quick."""

from __future__ import annotations

import argparse
import re
from typing import Any, Callable, Dict, List, Sequence, Tuple

from common.errors import DEBUG, UserError

_PLAIN_TYPES = (str, int, float, bool, type(None))
_LARGEST_SEED = 2**32 - 1  # NumPy's limit; other whole numbers are far below it


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument as one line, allows no abbreviations, shows defaults in --help, and has `--debug`."""

    def __init__(self, description: str | None, epilog: str | None = None, prog: str | None = None) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=_Formatter, allow_abbrev=False
        )
        self.add_argument(DEBUG, action=_NoValue, help="where an error ends the program, show its traceback too")

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> Any:
        """Parse as argparse does, and refuse empty strings, which as a path would mean the current folder."""
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            if value == "" or isinstance(value, list) and "" in value:
                self.error(f"{name.replace('_', '-')} is empty")
        return parsed

    def error(self, message: str) -> None:
        """Raise UserError; argparse would print the usage and exit."""
        raise UserError(f"{message} (see --help)")

    def settings(self, parsed: argparse.Namespace) -> List[Tuple[str, Any, Any]]:
        """The (flag, value, default) of each parsed argument, in the order of --help."""
        return [
            (action.option_strings[0], getattr(parsed, action.dest), action.default)
            for action in self._actions
            if action.default != argparse.SUPPRESS
        ]

    def flags(self, values: Dict[str, Any]) -> List[str]:
        """The command line that sets these values, by their names in the parsed arguments; None is left out.

        Raises:
            UserError: for a name that this parser does not have, or a value that no command line can set.
        """
        # without the actions that set no value; --help would end the program
        actions = {action.dest: action for action in self._actions if action.default != argparse.SUPPRESS}
        arguments = []
        for name, value in values.items():
            if name not in actions:
                raise UserError(f"there is no argument {name!r}")
            flag = actions[name].option_strings[0]
            is_switch = actions[name].nargs == 0
            if isinstance(value, bool) != is_switch and value is not None or not isinstance(value, _PLAIN_TYPES):
                raise UserError(f"{flag} cannot be {value!r}")
            if is_switch:
                if value:
                    arguments.append(flag)
            elif value is not None:
                arguments.append(f"{flag}={value}")
        return arguments


def whole(least: int, most: int = _LARGEST_SEED) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*[-+]?[0-9]{1,20}\s*", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number of at least {least}")
        if int(text) > most:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is more than {most}")
        return int(text)

    return parse


def real(below: float = float("inf"), zero: bool = True) -> Callable[[str], float]:
    """Return an argparse type: a number from 0 (if not `zero`: above 0) to less than `below`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (0 <= value if zero else 0 < value) or not value < below:
            bounds = "at least 0" if zero else "above 0"
            if below < float("inf"):
                bounds += f" and below {below:g}"
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a finite number {bounds}")
        return value

    return parse


def numbers(text: str) -> List[int]:
    """Parse an argument of whole numbers from 0 on, separated by commas."""
    return [whole(0)(part) for part in text.split(",")]


def box(text: str) -> Tuple[int, int, int, int]:
    """Parse "x0,y0,x1,y1", whole numbers of pixels, x to the right and y down; x1 and y1 are excluded."""
    if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*(,\s*-?[0-9]{1,9}\s*){3}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a box of four whole numbers x0,y0,x1,y1 (in pixels)")
    x0, y0, x1, y1 = map(int, text.split(","))
    if x0 >= x1 or y0 >= y1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} has no area; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


class _NoValue(argparse.Action):
    """A switch that sets nothing in the parsed arguments."""

    def __init__(self, option_strings: List[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, *_: Any) -> None:
        pass


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default is None or action.default is False or action.default == []
        return action.help if unset else super()._get_help_string(action)
