# SPDX-License-Identifier: Apache-2.0
"""How good a translation is, in numbers: free functions on NumPy arrays, which know nothing of networks.

Pictures are (H, W, 3) uint8. Masks are (N, H, W) bool, True inside the instance; N may be 0. `a` are the masks of the
input x, `b` those of its translation y, in the same order.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
from scipy import linalg, ndimage
from skimage.metrics import structural_similarity

from data.instances import iou

# what identical pictures have; a difference of one grey level everywhere has 48
IDENTICAL_PSNR = 100.0
# the mean difference of a pixel's channels, of 255, from which on it has changed; noise of the background is below
CHANGED = 25.0
# a mask that has grown by more than this is no translation of an instance any more
COLLAPSED_RATIO = 4.0
SSIM_WINDOW = 7


def background(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where neither the input nor its translation has an instance: (H, W) bool."""
    return ~(a.any(axis=0) | b.any(axis=0))


def psnr(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> Optional[float]:
    """Peak signal-to-noise ratio in dB of the pixels `where` (H, W); at most IDENTICAL_PSNR, None if there are none."""
    if not where.any():
        return None
    error = np.mean((x[where].astype(np.float64) - y[where]) ** 2)
    return IDENTICAL_PSNR if error == 0 else min(IDENTICAL_PSNR, float(10 * np.log10(255**2 / error)))


def ssim(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> Optional[float]:
    """Structural similarity (Wang et al., 2004), the mean over the windows of 7x7 pixels that lie wholly in `where`.

    None if there is no such window.
    """
    whole = ndimage.binary_erosion(where, np.ones((SSIM_WINDOW, SSIM_WINDOW)))
    if min(where.shape) < SSIM_WINDOW or not whole.any():
        return None
    _, similarity = structural_similarity(x, y, win_size=SSIM_WINDOW, channel_axis=2, data_range=255, full=True)
    return float(similarity[whole].mean())


def area_ratios(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area of each mask of the translation, in areas of the input's (N,); no mask of `a` may be empty."""
    return b.sum(axis=(1, 2)) / a.sum(axis=(1, 2))


def collapsed(ratios: np.ndarray) -> np.ndarray:
    """Which instances have vanished, or grown to more than COLLAPSED_RATIO times their area: (N,) bool."""
    return (ratios == 0) | (ratios > COLLAPSED_RATIO)


def agreement(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """IoU of what changed in the picture and what the masks say should: the old and the new instances.

    `a` counts too because where an old instance ends up outside its new one, the picture has to change there.
    """
    changed = np.abs(x.astype(np.float32) - y).mean(axis=2) > CHANGED
    return iou(changed, ~background(a, b))


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance of two sets of features (M, D), (N, D), each taken for a Gaussian (FID; Heusel et al., 2017)."""
    (mean, spread), (mean2, spread2) = ((f.mean(axis=0), np.cov(f, rowvar=False)) for f in (one, other))
    # tr((C1 C2)^0.5) is that of (C1^0.5 C2 C1^0.5)^0.5, which is symmetric
    values, vectors = linalg.eigh(np.atleast_2d(spread))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ np.atleast_2d(spread2) @ root), 0)).sum()
    return float(((mean - mean2) ** 2).sum() + np.trace(np.atleast_2d(spread + spread2)) - 2 * cross)


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Unbiased squared MMD of two sets of features with the kernel (x.y / D + 1)^3 (KID; Binkowski et al., 2018)."""
    m, n, size = len(one), len(other), one.shape[1]
    within, within2, across = ((p @ q.T / size + 1) ** 3 for p, q in ((one, one), (other, other), (one, other)))
    same = (within.sum() - np.trace(within)) / (m * (m - 1)) + (within2.sum() - np.trace(within2)) / (n * (n - 1))
    return float(same - 2 * across.mean())
