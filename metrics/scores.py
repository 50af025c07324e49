# SPDX-License-Identifier: Apache-2.0
"""Scores of a translation, as functions on NumPy arrays that know no networks.

Pictures are (H, W, 3) uint8. Masks are (N, H, W) bool, True inside the instance; N may be 0. `a` are the masks of the
input x, `b` those of its translation y, in the same order.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from data.instances import iou

# of identical pictures; a difference of one grey level everywhere has 48
IDENTICAL_PSNR = 100.0
# a pixel has changed if its channels differ by more than this on average, of 255; noise of the background is below
CHANGED = 25.0
# a mask that has grown by a larger factor no longer follows its instance
COLLAPSED_RATIO = 4.0
SSIM_WINDOW = 7  # pixels


def background(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The pixels without an instance in the input and in its translation: (H, W) bool."""
    return ~(a.any(axis=0) | b.any(axis=0))


def psnr(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> Optional[float]:
    """Peak signal-to-noise ratio in dB of the pixels `where` (H, W); at most IDENTICAL_PSNR, None if there are none."""
    if not where.any():
        return None
    error = np.mean((x[where].astype(np.float64) - y[where]) ** 2)
    if error == 0:
        return IDENTICAL_PSNR
    return min(IDENTICAL_PSNR, float(10 * np.log10(255**2 / error)))


def ssim(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> Optional[float]:
    """Structural similarity (Wang et al., 2004), the mean over the windows of 7x7 pixels that lie wholly in `where`.

    None if there is no such window.
    """
    # slow to import
    from scipy import ndimage
    from skimage.metrics import structural_similarity

    whole = ndimage.binary_erosion(where, np.ones((SSIM_WINDOW, SSIM_WINDOW)))
    if min(where.shape) < SSIM_WINDOW or not whole.any():
        return None
    _, similarity = structural_similarity(x, y, win_size=SSIM_WINDOW, channel_axis=2, data_range=255, full=True)
    return float(similarity[whole].mean())


def area_ratios(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area of each new mask divided by that of its old mask (N,); no mask of `a` may be empty."""
    return b.sum(axis=(1, 2)) / a.sum(axis=(1, 2))


def collapsed(ratios: np.ndarray) -> np.ndarray:
    """Return for each area ratio whether the instance has vanished or grown over COLLAPSED_RATIO times: (N,) bool."""
    return (ratios == 0) | (ratios > COLLAPSED_RATIO)


def agreement(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """IoU of the pixels that changed and those that should change by the masks: the old and the new instances.

    The old instances count because the picture has to change where an old instance lies outside its new one.
    """
    changed = np.abs(x.astype(np.float32) - y).mean(axis=2) > CHANGED
    return iou(changed, ~background(a, b))


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (M, D), (N, D) (FID; Heusel et al., 2017)."""
    # slow to import
    from scipy import linalg

    squared_distance = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    covariance = np.cov(one, rowvar=False)
    covariance2 = np.cov(other, rowvar=False)
    # tr((C1 C2)^0.5) equals that of (C1^0.5 C2 C1^0.5)^0.5, which is symmetric
    values, vectors = linalg.eigh(np.atleast_2d(covariance))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ np.atleast_2d(covariance2) @ root), 0)).sum()
    return float(squared_distance + np.trace(np.atleast_2d(covariance + covariance2)) - 2 * cross)


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Unbiased squared MMD of two sets of features with the kernel (x.y / D + 1)^3 (KID; Binkowski et al., 2018)."""
    return float(_mean_kernel(one) + _mean_kernel(other) - 2 * cubic_kernel(one, other).mean())


def cubic_kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The kernel (x.y / D + 1)^3 of each pair of features (M, D), (N, D): (M, N)."""
    return (one @ other.T / one.shape[1] + 1) ** 3


def _mean_kernel(features: np.ndarray) -> float:
    """The mean of the kernel over all pairs of two different features of a set."""
    count = len(features)
    values = cubic_kernel(features, features)
    return (values.sum() - np.trace(values)) / (count * (count - 1))
