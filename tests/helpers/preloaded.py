# SPDX-License-Identifier: Apache-2.0
"""The imports of the process that scripts are forked from; see scripts.py."""

from common.errors import begin_script

begin_script(__name__)

import threading

import matplotlib.figure
import scipy.ndimage  # noqa: F401
import skimage.metrics  # noqa: F401
from tqdm import tqdm

import app  # noqa: F401
import convert_pytorch  # noqa: F401
import evaluate  # noqa: F401
import segment  # noqa: F401
import train  # noqa: F401
import translate  # noqa: F401
from tests.helpers.curves import BlankFigure

matplotlib.figure.Figure = BlankFigure
# the lock that tqdm makes for several processes would stay behind where one is killed
tqdm.set_lock(threading.RLock())
