# SPDX-License-Identifier: Apache-2.0
"""The command lines of the data set generators."""

from __future__ import annotations

import argparse
import re
from typing import Callable

from common.command_line import Parser, real, whole
from common.errors import UserError
from datasets.two_domains import Limits, Made, print_summary


def add_categories(parser: Parser, cat1: str, cat2: str, ending: str, known: str) -> None:
    """Add the categories of both domains and the data set's folder; `known` is help on the categories there are."""
    add = parser.add_argument
    add(
        "--save_root",
        default=argparse.SUPPRESS,
        help="the folder to make, for train.py --dataroot (default: from the categories, "
        f"{default_root(cat1, cat2, ending)})",
    )
    add("--cat1", default=cat1, help=f"what domain A shows; {known}")
    add("--cat2", default=cat2, help="what domain B shows; pictures that show both go into both domains")


def add_limits(parser: Parser, min_area: float) -> None:
    """Add the arguments of `Limits`."""
    add = parser.add_argument
    add(
        "--min-area",
        type=real(1),
        default=min_area,
        help="leave out instances that cover less than this share of their picture (0.001: a thousandth of its pixels)",
    )
    add("--max-instances", type=whole(1), help="keep only the largest instances of a picture (default: all)")


def add_holdout(parser: Parser) -> None:
    """Add the arguments of `hold_out`."""
    add = parser.add_argument
    add("--holdout", type=float, default=0.1, help="share of the pictures with masks kept for test; 0 keeps none")
    add("--seed", type=int, default=0, help="decides which pictures are held out; the same seed, the same split")


def add_writing(parser: Parser) -> None:
    """Add the arguments about how a data set is written."""
    add = parser.add_argument
    add("--workers", type=whole(1, 64), help="pictures processed at a time (default: one for each core, at most 8)")
    add("--overwrite", action="store_true", help="replace an existing --save_root, once the new one is whole")


def parse(parser: Parser, ending: str) -> argparse.Namespace:
    """Read a command line with `add_categories`; if --save_root is not given, it follows from the categories."""
    arguments = parser.parse_args()
    if not hasattr(arguments, "save_root"):
        arguments.save_root = default_root(arguments.cat1, arguments.cat2, ending)
    return arguments


def default_root(first: str, second: str, ending: str) -> str:
    """The folder of a data set of these categories, such as datasets/jeans2skirt_ccp."""
    return "datasets/" + re.sub(r"[^\w-]+", "_", f"{first}2{second}{ending}")


def check_holdout(holdout: float) -> None:
    """Raise UserError unless `holdout` is a share that leaves something to train on."""
    if not 0 <= holdout < 1:
        raise UserError(f"--holdout {holdout} is not a share; give a number from 0 up to, not including, 1")


def make_within_limits(generate: Callable[..., Made], arguments: argparse.Namespace) -> None:
    """Make a data set from a command line with `add_categories` and `add_limits`, and print its summary."""
    options = vars(arguments)
    limits = Limits(options.pop("min_area"), options.pop("max_instances"))
    made = generate(limits=limits, **options)
    print_summary(options["save_root"], options["cat1"], options["cat2"], made)
