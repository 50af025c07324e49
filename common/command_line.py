# SPDX-License-Identifier: Apache-2.0
"""What the command lines of all scripts have in common. Imports nothing slow, so that `--help` comes at once."""

from __future__ import annotations

import argparse
import re
from typing import Any, Callable, Dict, List, Sequence, Tuple

from common.errors import DEBUG, UserError

_PLAIN = (str, int, float, bool, type(None))
_LARGEST = 2**32 - 1  # what a seed may be; nothing else comes near


class _Nothing(argparse.Action):
    """A switch that leaves no trace in the parsed arguments."""

    def __init__(self, option_strings: List[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, *_: Any) -> None:
        pass


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument as one line, knows no abbreviations, shows defaults in --help, and has `--debug`."""

    def __init__(self, description: str | None, epilog: str | None = None, prog: str | None = None) -> None:
        how = {"formatter_class": _Formatter, "allow_abbrev": False}
        super().__init__(prog=prog, description=description, epilog=epilog, **how)
        self.add_argument(DEBUG, action=_Nothing, help="where an error ends the program, show its traceback too")

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> Any:
        """As argparse's, and refuses empty texts, which as a path would be the current folder."""
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            if value == "" or isinstance(value, list) and "" in value:
                self.error(f"{name.replace('_', '-')} is empty")
        return parsed

    def error(self, message: str) -> None:
        """Raise UserError in place of printing the usage."""
        raise UserError(f"{message} (see --help)")

    def flags(self, values: Dict[str, Any]) -> List[str]:
        """The command line that gives these values, by their names in the parsed arguments; None is left out.

        Raises:
            UserError: for a name that this parser does not have, or a value that no command line can give.
        """
        # of those without a value, --help would end the program
        actions = {a.dest: a for a in self._actions if a.default != argparse.SUPPRESS}
        given = []
        for name, value in values.items():
            if name not in actions:
                raise UserError(f"there is no argument {name!r}")
            flag, is_switch = actions[name].option_strings[0], actions[name].nargs == 0
            if isinstance(value, bool) != is_switch and value is not None or not isinstance(value, _PLAIN):
                raise UserError(f"{flag} cannot be {value!r}")
            if is_switch:
                given += [flag] * bool(value)
            elif value is not None:
                given.append(f"{flag}={value}")
        return given


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default is None or action.default is False or action.default == []
        return action.help if unset else super()._get_help_string(action)


def whole(least: int, most: int = _LARGEST) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*[-+]?[0-9]{1,20}\s*", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number of at least {least}")
        if int(text) > most:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is more than {most}")
        return int(text)

    return parse


def numbers(text: str) -> List[int]:
    """An argparse type: whole numbers from 0 on, with commas between them."""
    return [whole(0)(part) for part in text.split(",")]


def box(text: str) -> Tuple[int, int, int, int]:
    """An argparse type: "x0,y0,x1,y1", whole numbers of pixels, x to the right and y down; x1 and y1 are excluded."""
    if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*(,\s*-?[0-9]{1,9}\s*){3}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no box of four whole numbers x0,y0,x1,y1 (in pixels)")
    x0, y0, x1, y1 = map(int, text.split(","))
    if x0 >= x1 or y0 >= y1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} has no area; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def real(below: float = float("inf"), zero: bool = True) -> Callable[[str], float]:
    """An argparse type: a number from 0 (above 0 where not `zero`) to less than `below`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (0 <= value if zero else 0 < value) or not value < below:
            bound = "at least 0" if zero else "above 0"
            raise argparse.ArgumentTypeError(
                f"{text[:20]!r} is not a finite number {bound}" + (f" and below {below:g}" * (below < 2))
            )
        return value

    return parse
