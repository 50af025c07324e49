# SPDX-License-Identifier: Apache-2.0
"""Translation in place: windows and groups against their definitions, blending against distances, a picture whose
"translation" is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from translation import keep_size
from translation.keep_size import View, cut_out, groups, translate_in_place
from translation.placed_mask import PlacedMask, Window

quick = settings(max_examples=60, deadline=None)


@st.composite
def windows(draw, height=60, width=50):
    """A window with at least one pixel in a picture."""
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Window(top, left, draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width)))


def pixels(window, height=60, width=50):
    """The window's pixels as a mask."""
    mask = np.zeros((height, width), bool)
    mask[window.top : window.bottom, window.left : window.right] = True
    return mask


def disc(top, left, radius, height=60, width=50):
    rows, columns = np.mgrid[:height, :width]
    return (rows - top) ** 2 + (columns - left) ** 2 <= radius**2


@quick
@given(windows(), windows())
def test_windows_are_sets_of_pixels(one, other):
    common = one.intersection(other)
    both = pixels(one) & pixels(other)
    assert (common is not None) == both.any()
    if common:
        assert (pixels(common) == both).all()
        assert (pixels(one)[other.slices] == pixels(common.within(other), *other.size)).all()
    assert one.contains(other) == (both == pixels(other)).all()


@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_a_placed_mask_is_the_mask(seed, count):
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, 9, 7), bool)
    for mask in masks:
        mask[rng.integers(0, 9, count), rng.integers(0, 7, count)] = True
    one, other = map(PlacedMask.of, masks)
    assert (one.at((9, 7)) == masks[0] * 255).all()
    assert one.area == masks[0].sum()
    assert one.overlaps(other) == (masks[0] & masks[1]).any()
    height, width = one.window.size
    assert height * width <= 63 and (not count or one.level.any(axis=1)[[0, -1]].all())


def test_a_mask_of_another_scale_fills_its_window():
    mask = PlacedMask(Window(10, 20, 50, 40), np.full((4, 2), 255, np.uint8)).at((60, 50))
    assert (mask == pixels(Window(10, 20, 50, 40)) * 255).all()


@quick
@given(windows(), st.integers(2, 40), st.integers(2, 40), st.floats(0.05, 1))
def test_what_the_network_sees_of_an_instance(instance, height, width, share):
    window = cut_out(instance, (60, 50), View((height, width), share))
    assert window.contains(instance)
    assert Window(0, 0, 60, 50).contains(window)
    # never enlarged, as far as there is a picture
    assert window.size[0] >= min(height, 60) and window.size[1] >= min(width, 50)


def test_an_instance_looks_as_large_as_in_training():
    # 30 high and 20 wide: 30 / 0.25 of the network's 60 is a scale of 2, its width would ask for less
    window = cut_out(Window(500, 700, 530, 720), (2000, 2000), View((60, 80), 0.25))
    assert window == Window(455, 630, 575, 790)
    # near a corner it is moved into the picture
    assert cut_out(Window(0, 0, 30, 20), (2000, 2000), View((60, 80), 0.25)) == Window(0, 0, 120, 160)


@quick
@given(st.lists(windows(), max_size=8), st.integers(1, 3), st.floats(0.1, 1))
def test_groups_keep_the_order_of_what_overlaps(boxes, ins_per, share):
    instances = [PlacedMask.of(pixels(box)) for box in boxes]
    views = [cut_out(box, (60, 50), View((16, 16), share)) for box in boxes]
    found = groups(instances, ins_per, views)
    assert sorted(i for group in found for i in group) == list(range(len(boxes)))
    assert [group[0] for group in found] == sorted(group[0] for group in found)
    when = {i: (n, k) for n, group in enumerate(found) for k, i in enumerate(group)}
    for group in found:
        assert len(group) <= ins_per
        assert all(views[group[0]].contains(boxes[i]) for i in group)
    for i, one in enumerate(boxes):
        for j in range(i):
            if (pixels(one) & pixels(boxes[j])).any():
                assert when[j] < when[i]


def test_neighbours_are_translated_together():
    near = [PlacedMask.of(pixels(Window(4 * i, 2, 4 * i + 3, 5))) for i in range(4)]
    views = [Window(0, 0, 60, 50)] * 4
    assert groups(near, 2, views) == [[0, 1], [2, 3]]
    assert groups(near, 3, views) == [[0, 1, 2], [3]]
    far = [Window(0, 0, 3, 6), Window(4, 0, 7, 6), Window(8, 0, 16, 6), Window(8, 0, 16, 6)]
    assert groups(near, 4, far) == [[0], [1], [2, 3]]


def test_a_small_instance_has_a_cut_out_of_its_own():
    """It would have few pixels in its large neighbour's cut-out, or lie at the edge."""
    large, small, twin = Window(50, 50, 150, 150), Window(90, 160, 100, 170), Window(50, 155, 150, 255)
    view = View((64, 64), 0.4)
    windows = [cut_out(w, (1000, 1000), view) for w in (large, small, twin)]
    assert windows[0].contains(small)
    instances = [PlacedMask.of(pixels(w, 1000, 1000)) for w in (large, small, twin)]
    assert groups(instances[:2], 2, windows[:2]) == [[0], [1]]
    assert windows[0].size == windows[2].size and not windows[0].contains(twin)
    # moved so near that it is shown whole, but ends at the edge
    near = Window(50, windows[0].right - 100, 150, windows[0].right)
    instances[2], windows[2] = PlacedMask.of(pixels(near, 1000, 1000)), cut_out(near, (1000, 1000), view)
    assert windows[0].contains(near) and groups(instances, 3, windows) == [[0], [1], [2]]


@pytest.mark.parametrize("width", [2, 3, 7])
def test_feathers_are_as_wide_as_is_said(width):
    union = disc(30, 20, 9) | disc(50, 45, 3)
    weight = keep_size.feathered(union, width, Window(0, 0, 60, 50), (60, 50))
    distance = distance_transform_edt(~union)
    assert (weight[union] == 1).all()
    assert (weight[distance > width] == 0).all()
    between = weight[(distance > 0) & (distance <= width / 2)]
    assert between.max() <= 1 and (between > 0).all() and (between < 1).any()


def test_feathers_end_at_the_edges_of_a_cut_out():
    weight = keep_size.feathered(np.ones((20, 30), bool), 3, Window(5, 0, 25, 30), (60, 30))
    assert (weight[0] == 0).all() and (weight[-1] == 0).all()
    # these two are the picture's own edges
    assert (weight[6:-6] == 1).all()


def negative(x, a):
    """A "translation" that is easy to predict: colours are inverted, and masks stay."""
    return -x, a


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([0.2, 0.5, 1.0]))
def test_only_instances_are_touched(seed, ins_per, share):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (60, 50, 3), np.uint8)
    masks = [disc(*rng.integers(0, 50, 2), rng.integers(1, 12)) for _ in range(3)]
    before = picture.copy()
    view = View((16, 12), share)
    after, new = translate_in_place(picture, [PlacedMask.of(m) for m in masks], negative, view, ins_per)
    assert (picture == before).all()
    # the feathers are at most as wide as a pixel of the network is in the largest cut-out
    union = np.any([*masks, *(n.at((60, 50)) > 127 for n in new)], axis=0)
    far = distance_transform_edt(~union) > max(2, round(max(60 / 16, 50 / 12)))
    assert (after[far] == picture[far]).all()


def test_at_the_network_s_own_scale_it_is_the_translation():
    """Nothing is scaled where the cut-out has the network's size: inside it is exactly the network's output."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    mask = disc(30, 25, 4)
    after, (new,) = translate_in_place(picture, [PlacedMask.of(mask)], negative, View((24, 24), 0.9), 2)
    assert (after[mask] == 255 - picture[mask]).all()
    assert (new.at((60, 50)) == mask * 255).all()


def test_later_instances_see_what_became_of_earlier_ones():
    seen = []

    def noting(x, a):
        seen.append((x.copy(), a.copy()))
        return -x, a

    picture = np.full((40, 40, 3), 255, np.uint8)
    large, small = disc(20, 20, 8, 40, 40), disc(20, 26, 4, 40, 40)
    after, _ = translate_in_place(picture, [PlacedMask.of(large), PlacedMask.of(small)], noting, View((40, 40), 0.5), 1)
    (first, a), (second, b) = seen
    assert (first == 1).all()
    assert ((a[0] > 0) == large).all() and ((b[0] > 0) == small).all()
    assert (second[:, large] == -1).all() and (second[:, :10] == 1).all()
    # inverted twice where both are
    assert (after[large & small] == 255).all() and (after[20, 12:20] == 0).all() and (after[:10] == 255).all()


def test_what_is_too_thin_for_the_network_is_translated_all_the_same():
    picture = np.zeros((400, 400, 3), np.uint8)
    line = np.zeros((400, 400), bool)
    line[200, 20:380] = True
    seen = []
    translate_in_place(picture, [PlacedMask.of(line)], lambda x, a: seen.append(a) or (x, a), View((16, 16), 0.5), 1)
    assert seen[0].max() == 1


def test_a_picture_smaller_than_the_network():
    # smooth, so that it comes through enlarging and reducing
    picture = np.add.outer(np.arange(10) * 9, np.arange(7) * 9)[..., None].repeat(3, 2).astype(np.uint8)
    mask = np.zeros((10, 7), bool)
    mask[3:6, 2:5] = True
    shapes = []

    def noting(x, a):
        shapes.append((x.shape, a.shape))
        return -x, a

    after, (new,) = translate_in_place(picture, [PlacedMask.of(mask)], noting, View((32, 24), 0.5), 2)
    assert shapes == [((3, 32, 24), (1, 32, 24))]
    assert new.at((10, 7)).shape == (10, 7)
    assert np.abs(after[mask] - (255.0 - picture[mask])).max() <= 4
    assert (after[[0, -1]] == picture[[0, -1]]).all()
