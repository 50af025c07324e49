# SPDX-License-Identifier: Apache-2.0
"""Each metric on cases whose answer is known by hand, or from a slower formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg
from skimage.metrics import structural_similarity

from data import instances
from metrics import scores


def blank(height=20, width=30, grey=100):
    return np.full((height, width, 3), grey, np.uint8)


def box(top, left, bottom, right, height=20, width=30):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def random_picture(seed, height=20, width=30):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_background_is_outside_all_masks_of_both():
    a, b = np.array([box(0, 0, 5, 5), box(10, 0, 12, 4)]), np.array([box(3, 3, 8, 8)])
    where = scores.background(a, b)
    assert where.sum() == 20 * 30 - (25 + 8 + 25 - 4)
    assert scores.background(np.zeros((0, 20, 30), bool), b).sum() == 20 * 30 - 25


def test_psnr_of_a_constant_difference():
    x, y = blank(grey=100), blank(grey=110)
    everywhere = np.ones((20, 30), bool)
    assert scores.psnr(x, y, everywhere) == pytest.approx(10 * np.log10(255**2 / 100))
    assert scores.psnr(y, x, everywhere) == scores.psnr(x, y, everywhere)


def test_psnr_looks_at_the_background_only():
    x = random_picture(0)
    y = x.copy()
    y[2:6, 2:6] = 255 - y[2:6, 2:6]
    assert scores.psnr(x, y, ~box(2, 2, 6, 6)) == scores.IDENTICAL_PSNR
    assert scores.psnr(x, y, ~box(2, 2, 6, 5)) < 40
    assert scores.psnr(x, y, np.zeros((20, 30), bool)) is None


def test_ssim_of_two_flat_pictures_is_its_luminance_term():
    x, y = blank(grey=100), blank(grey=150)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert scores.ssim(x, y, np.ones((20, 30), bool)) == pytest.approx(expected, abs=1e-6)


def test_ssim_everywhere_is_that_of_scikit_image():
    x, y = random_picture(1), random_picture(2)
    expected = structural_similarity(x, y, channel_axis=2, data_range=255)
    assert scores.ssim(x, y, np.ones((20, 30), bool)) == pytest.approx(expected, abs=1e-9)


def test_ssim_has_no_window_that_reaches_into_an_instance():
    x = random_picture(3)
    y = x.copy()
    y[8:12, 8:12] = 0
    assert scores.ssim(x, y, ~box(8, 8, 12, 12)) == pytest.approx(1, abs=1e-9)
    assert scores.ssim(x, y, ~box(9, 8, 12, 12)) < 0.9999
    assert scores.ssim(x, y, box(0, 0, 6, 30)) is None
    assert scores.ssim(x[:5], y[:5], np.ones((5, 30), bool)) is None


def test_area_ratios_and_collapse():
    a = np.array([box(0, 0, 2, 5)] * 5)
    b = np.array([a[0], box(0, 0, 4, 10), box(0, 0, 4, 10) | box(5, 0, 6, 1), box(0, 0, 0, 0), a[0]])
    assert scores.area_ratios(a, b).tolist() == [1, 4, 4.1, 0, 1]
    assert scores.collapsed(scores.area_ratios(a, b)).tolist() == [False, False, True, True, False]


def test_agreement_of_masks_and_change():
    x, a, b = blank(), np.array([box(0, 0, 4, 4)]), np.array([box(2, 2, 6, 6)])
    y = x.copy()
    assert scores.agreement(x, y, a, b) == 0
    y[(a[0] | b[0])] = 200
    assert scores.agreement(x, y, a, b) == 1
    y[10:14, 10:17] = 200
    assert scores.agreement(x, y, a, b) == 28 / (28 + 28)
    nothing = np.zeros((0, 20, 30), bool)
    assert scores.agreement(x, x, nothing, nothing) == 1


def test_a_change_counts_from_the_threshold_on():
    x, b = blank(grey=100), np.array([box(2, 2, 6, 6)])
    y = x.copy()
    y[2:6, 2:6] = 125
    assert scores.agreement(x, y, b, b) == 0
    y[2:6, 2:6] = 126
    assert scores.agreement(x, y, b, b) == 1


def test_iou():
    assert instances.iou(box(0, 0, 2, 2), box(1, 0, 3, 2)) == 2 / 6
    assert instances.iou(box(0, 0, 2, 2), box(5, 5, 6, 6)) == 0
    assert instances.iou(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1


def test_frechet_distance_in_one_dimension():
    # means 0 and 3, unbiased variances 1 and 4
    one, other = np.array([[-1.0], [0], [1]]), np.array([[1.0], [3], [5]])
    assert scores.frechet_distance(one, other) == pytest.approx(3**2 + (2 - 1) ** 2)
    assert scores.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [40, 4])  # 4: fewer samples than dimensions, so singular covariances
def test_frechet_distance_against_the_matrix_root(count):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(count, 6)), rng.normal(1, 2, (count, 6)) @ rng.normal(size=(6, 6))
    c1, c2 = np.cov(one.T), np.cov(other.T)
    values = linalg.eigvals(c1 @ c2)
    root = np.sqrt(np.maximum(values.real, 0)).sum()
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(c1 + c2) - 2 * root
    assert scores.frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert scores.frechet_distance(other, one) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_against_the_sums_of_its_definition():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(5, 3)), rng.normal(0.5, 1, (7, 3))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    within = sum(k(x, y) for i, x in enumerate(one) for j, y in enumerate(one) if i != j) / (5 * 4)
    within2 = sum(k(x, y) for i, x in enumerate(other) for j, y in enumerate(other) if i != j) / (7 * 6)
    across = sum(k(x, y) for x in one for y in other) / 35
    assert scores.kernel_distance(one, other) == pytest.approx(within + within2 - 2 * across)
