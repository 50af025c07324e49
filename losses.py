# SPDX-License-Identifier: Apache-2.0
"""The losses of InstaGAN (paper, equations 2 to 5), as free functions of NNabla variables; each returns a scalar.

Pictures are (B, 3, H, W) and masks (M, 1, H, W), both in [-1, 1]; membership (B, M) says whose mask is whose.
Their weighted sum, equation 6, is in training/graphs.py.
"""

from __future__ import annotations

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

    Not in the paper, and for `--background keep` alone. There G need not redraw the background, so it does not learn
    what to put where an instance has gone: small squares that became circles kept their corners. The truth is not
    known there; the mean colour of the nearest surroundings comes close. Gradients reach y, and neither a nor b.
    """
    before = widened(coverage((a + 1) * 0.5, membership))
    vacated = before * (1 - widened(coverage((b + 1) * 0.5, membership)))
    surroundings = _spread(x, 1 - before)
    for constant in (vacated, surroundings):
        constant.need_grad = False
    return reductions.mean(vacated * F.absolute_error(y, surroundings))


def _spread(x: nn.Variable, known: nn.Variable) -> nn.Variable:
    """Fill x (B, C, H, W), where it is not `known` (B, 1, H, W), with the mean of the smallest square of known pixels.

    The squares around a pixel have sides of 3, 5, 9, 17, ... pixels; the last one reaches all of the picture.
    """
    sides = [3]
    while sides[-1] < 2 * max(x.shape[2:]) - 1:
        sides.append(2 * sides[-1] - 1)
    known_values = x * known
    filled = known_values
    is_filled = known
    for side in sides:
        count = _sum_over_squares(known, side)
        mean = _sum_over_squares(known_values, side) / F.maximum_scalar(count, 1.0)
        is_reached = F.minimum_scalar(count, 1.0)
        filled = filled + (is_reached - is_filled) * mean
        is_filled = is_reached
    return filled


def _sum_over_squares(x: nn.Variable, side: int) -> nn.Variable:
    """The sum over the square of so many pixels around each pixel; there are zeros around the picture."""
    rows = F.sum_pooling(x, (side, 1), (1, 1), pad=(side // 2, 0))
    return F.sum_pooling(rows, (1, side), (1, 1), pad=(0, side // 2))
