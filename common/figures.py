# SPDX-License-Identifier: Apache-2.0
"""Draw figures with matplotlib, which look the same whatever the user's environment says."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from common import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def saved_figure(path: Path, dpi: int, **options: Any) -> Iterator[Figure]:
    """Yield an empty figure with matplotlib's own settings; after the block, write it as a PNG, whole or not at all.

    `options` are those of matplotlib's `Figure`, such as `figsize` in inches.
    """
    # a notebook sets it to a backend that other environments lack; none is needed to save a figure
    os.environ["MPLBACKEND"] = "agg"
    if os.path.expanduser("~") == "~":
        # without a home, matplotlib stops for want of a folder; for one that it cannot use, it makes a temporary one
        os.environ.setdefault("MPLCONFIGDIR", os.devnull)
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # slow to import
    import matplotlib.figure

    with matplotlib.rc_context():
        # a matplotlibrc may say anything
        matplotlib.rcdefaults()
        figure = matplotlib.figure.Figure(**options)
        yield figure
        with files.replacing(path) as part:
            figure.savefig(part, dpi=dpi)
