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
    batch, _, height, width = x.shape
    cover = F.reshape((a + b + 2) * 0.5, (a.shape[0], -1))
    covered = F.reshape(F.affine(membership, cover), (batch, 1, height, width))
    # min(., 1) and not clip(., 0, 1): the sum is never negative
    return reductions.mean((1 - F.minimum_scalar(covered, 1.0)) * F.absolute_error(x, y))
