# SPDX-License-Identifier: Apache-2.0
"""The losses of InstaGAN (paper, equations 2 to 5), and one of our own, as free functions of NNabla variables.

Each returns a scalar.

Pictures are (B, 3, H, W) and masks (M, 1, H, W), both in [-1, 1]; membership (B, M) says whose mask is whose.
Their weighted sum, equation 6, is in training/graphs.py.
"""

from __future__ import annotations

from functools import partial
from typing import Tuple

import nnabla as nn
import nnabla.functions as F

from backend import reductions
from models import coverage, widened


def lsgan_loss(score: nn.Variable, target: float | nn.Variable) -> nn.Variable:
    """Least squares GAN: mean of (score - target)^2 over all patches (paper, equation 2)."""
    return reductions.mean((score - target) ** 2)


def set_l1_loss(
    original: Tuple[nn.Variable, nn.Variable], translated: Tuple[nn.Variable, nn.Variable], slots: int
) -> nn.Variable:
    """L1 between (picture, masks) and (picture, masks): cycle consistency and identity mapping (equations 3 and 4).

    The mean is over all 3 + `slots` channels of each picture, where `slots` is the number of mask slots of a
    mini-batch (`ins_per`). Empty slots are the same on both sides, so they add nothing to the sum but do count. With
    0 slots the pictures alone are compared, as in CycleGAN.
    """
    x, a = original
    x2, a2 = translated
    batch, channels, height, width = x.shape
    total = reductions.total(F.absolute_error(x, x2))
    if slots:
        total = total + reductions.total(F.absolute_error(a, a2))
    return total / (batch * (channels + slots) * height * width)


def context_preserving_loss(
    x: nn.Variable, a: nn.Variable, y: nn.Variable, b: nn.Variable, membership: nn.Variable
) -> nn.Variable:
    """L1 between a picture and its translation where neither has an instance (equation 5).

    The weight of a pixel is 1 - clip(sum of (m + 1)/2 over the picture's masks m, before (a) and after (b), 0, 1);
    gradients reach b through it.
    """
    covered = coverage((a + b + 2) * 0.5, membership)
    return reductions.mean((1 - covered) * F.absolute_error(x, y))


def vacated_region_loss(
    x: nn.Variable, a: nn.Variable, y: nn.Variable, b: nn.Variable, membership: nn.Variable
) -> nn.Variable:
    """L1 between a translation and what surrounds its old masks, where an instance was (a) and none is now (b).

    Not in the paper: with `--background keep` it replaces the context preserving loss. There G need not redraw the
    background, so it does not learn what to put where an instance has gone: small squares that became circles kept
    their corners. The truth is not known there; the mean colour of the nearest surroundings comes close. Gradients
    reach y; a and b are constants here. Masks of other passes are not looked at, not even where instances overlap.
    """
    old = (a + 1) * 0.5
    new = (b + 1) * 0.5
    for constant in (old, new):
        constant.need_grad = False
    before = coverage(old, membership)
    # pixels that the new masks cover by half or more are theirs
    vacated = before * F.relu(1 - 2 * coverage(new, membership))
    surroundings, is_filled = _spread(x, 1 - widened(before))
    return reductions.mean(vacated * is_filled * F.absolute_error(y, surroundings))


def _spread(x: nn.Variable, known: nn.Variable) -> Tuple[nn.Variable, nn.Variable]:
    """Fill x (B, C, H, W), where it is not `known` (B, 1, H, W), with the mean of the smallest square of known pixels.

    The squares around a pixel are of 3, 5, 9, 17 and 33 pixels, and then there is the whole picture. Also returns
    (B, 1, 1, 1) with 1 for pictures that are filled, and 0 for those that have no known pixel.
    """
    values = x * known
    filled = values
    is_filled = known
    sums_over = [partial(_sum_over_squares, side=side) for side in (3, 5, 9, 17, 33)]
    for sum_over in [*sums_over, partial(reductions.total, axes=(2, 3), keepdims=True)]:
        count = sum_over(known)
        mean = sum_over(values) / F.maximum_scalar(count, 1.0)
        is_reached = F.minimum_scalar(count, 1.0)
        filled = filled + (is_reached - is_filled) * mean
        is_filled = is_reached
    return filled, is_filled


def _sum_over_squares(x: nn.Variable, side: int) -> nn.Variable:
    """The sum over the `side` x `side` pixels around each pixel of x (B, C, H, W); around the picture are zeros."""
    rows = F.sum_pooling(x, (side, 1), (1, 1), pad=(side // 2, 0))
    return F.sum_pooling(rows, (1, side), (1, 1), pad=(0, side // 2))
