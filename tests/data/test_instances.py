# SPDX-License-Identifier: Apache-2.0
"""Sets of instances, the sequential mini-batch, and translating with it: what holds for any masks."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import arrays
from data import instances
from models import INFERENCE, Architecture, create_parameters, generator
from translation.sequence import Batch, MaskSet, SequentialTranslation
from translation.translator import Translator

quick = settings(max_examples=60, deadline=None)

HEIGHT, WIDTH = 3, 4
counts_of_pixels = st.lists(st.integers(0, HEIGHT * WIDTH), max_size=7)


def masks_of(sizes, seed=0):
    """Masks (N, H, W) with these areas, at random pixels."""
    rng = np.random.default_rng(seed)
    masks = -np.ones((len(sizes), HEIGHT * WIDTH), np.float32)
    for mask, size in zip(masks, sizes):
        mask[rng.permutation(HEIGHT * WIDTH)[:size]] = 1
    return masks.reshape(-1, HEIGHT, WIDTH)


# instances.py


@quick
@given(counts_of_pixels)
def test_areas(sizes):
    masks = masks_of(sizes)
    assert instances.areas(masks).tolist() == sizes
    # masks before they are made floats
    assert instances.areas(masks > 0).tolist() == sizes


@quick
@given(counts_of_pixels, st.none() | st.integers(1, 8), st.integers(0, 100))
def test_select(sizes, ins_max, seed):
    masks = masks_of(sizes)
    order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: (-sizes[i], i))
    want = order if ins_max is None else order[:ins_max]
    assert instances.select(masks, ins_max, "decreasing", np.random.default_rng(seed)).tolist() == want
    shuffled = instances.select(masks, ins_max, "random", np.random.default_rng(seed))
    assert sorted(shuffled.tolist()) == sorted(want)
    assert shuffled.tolist() == instances.select(masks, ins_max, "random", np.random.default_rng(seed)).tolist()


def test_random_order_takes_every_order():
    masks, rng = masks_of([5, 4, 3]), np.random.default_rng(0)
    seen = [tuple(instances.select(masks, None, "random", rng)) for _ in range(600)]
    assert len(set(seen)) == 6
    assert min(map(seen.count, set(seen))) > 50


@quick
@given(st.integers(0, 30), st.integers(1, 10))
def test_mini_batches(count, ins_per):
    """They cut the instances into whole mini-batches, in order, with what is left over in the last one."""
    found = [list(range(count))[part] for part in instances.mini_batches(count, ins_per)]
    assert sum(found, []) == list(range(count))
    assert all(len(part) == ins_per for part in found[:-1])
    assert all(1 <= len(part) <= ins_per for part in found)


@quick
@given(st.lists(st.lists(st.integers(0, HEIGHT * WIDTH), max_size=3), min_size=1, max_size=4))
def test_masks_of_several_pictures(sizes):
    """Every mask has one owner, and a picture without any gets an empty one."""
    sets = [masks_of(s, seed) for seed, s in enumerate(sizes)]
    packed = instances.pack(sets)
    assert packed.shape == (sum(max(1, len(s)) for s in sets), 1, HEIGHT, WIDTH) and packed.dtype == np.float32
    uploaded = MaskSet.upload(sets)
    membership = uploaded.membership.data
    np.testing.assert_array_equal(uploaded.masks.data, packed)
    assert membership.shape == (len(sets), len(packed)) and membership.dtype == np.float32
    assert membership.sum(axis=0).tolist() == [1] * len(packed) and set(membership.flatten()) <= {0, 1}
    parts = [original if len(original) else -np.ones((1, HEIGHT, WIDTH)) for original in sets]
    for owned, expected in zip(membership, parts):
        np.testing.assert_array_equal(packed[owned > 0, 0], expected)
    joined = MaskSet.join([arrays.upload(part[:, None]) for part in parts])
    assert joined.counts == uploaded.counts
    np.testing.assert_array_equal(joined.masks.data, packed)


@quick
@given(counts_of_pixels, st.integers(0, 100))
def test_union(sizes, seed):
    masks = masks_of(sizes, seed)
    covered = np.any([mask > 0 for mask in masks] or [np.zeros((HEIGHT, WIDTH), bool)], axis=0)
    np.testing.assert_array_equal(instances.union(masks), np.where(covered, 1, -1))


def test_union_adds_up_what_is_in_part_inside():
    halves = np.array([[[0.0, -0.5, -1.0, 0.2]], [[0.0, -0.5, -1.0, 1.0]]])
    np.testing.assert_allclose(instances.union(halves), [[1, 0, -1, 1]])


# sequence.py: the generator here numbers what it is given


def paint(batch):
    """y' adds up the masks it has seen, which shows the passes it has been through; b' = -b / 2."""
    masks, membership = batch.masks.masks.data, batch.masks.membership.data
    totals = (membership[:, :, None, None] * masks[None, :, 0]).sum(axis=1)
    return arrays.upload(batch.pictures.data * 3 + totals[:, None]), arrays.upload(-masks / 2)


def owned(masks, row):
    """The masks (N, H, W) of picture `row` of a mini-batch."""
    return masks.masks.data[masks.membership.data[row] > 0, 0]


@quick
@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(1, 8), st.integers(0, 1000))
def test_sequential_translation(counts, ins_per, seed):
    rng = np.random.default_rng(seed)
    pictures = list(rng.integers(-9, 9, (len(counts), 3, HEIGHT, WIDTH)).astype(np.float32))
    # all masks differ
    numbers = iter(range(1, 100))
    masks = [np.stack([np.full((HEIGHT, WIDTH), next(numbers), np.float32) for _ in range(n)])
             if n else np.zeros((0, HEIGHT, WIDTH), np.float32) for n in counts]  # fmt: skip
    uploaded = Batch(pictures, masks, ins_per)
    np.testing.assert_array_equal(uploaded.pictures.data, np.stack(pictures))
    np.testing.assert_array_equal(uploaded.masks.masks.data, instances.pack(masks))
    progress, results = SequentialTranslation(uploaded), {}
    passes = 0
    while progress.remaining:
        first = passes * ins_per
        who = [i for i, n in enumerate(counts) if n > first]
        assert progress.remaining == who
        batch = progress.mini_batch()
        # its instances are those next in order, its pictures the results of the pass before
        for row, i in enumerate(who):
            np.testing.assert_array_equal(owned(batch.masks, row), masks[i][first : first + ins_per])
            before = results[i][0].data[0] if passes else pictures[i]
            np.testing.assert_array_equal(batch.pictures.data[row], before)
            if passes:
                np.testing.assert_array_equal(owned(batch.earlier, row), -masks[i][:first] / 2)
        assert sum(batch.masks.counts) == sum(min(ins_per, counts[i] - first) for i in who)
        assert batch.earlier is None if not passes else sum(batch.earlier.counts) == first * len(who)
        y, b = paint(batch)
        shown = progress.advance(y, b)
        # the input of D: each picture of the pass, and its masks so far
        assert len(shown) == len(who)
        for (picture, translated), row, i in zip(shown, range(len(who)), who):
            np.testing.assert_array_equal(picture.data, y.data[row : row + 1])
            np.testing.assert_array_equal(translated.data[:, 0], -masks[i][: first + ins_per] / 2)
            results[i] = picture, translated
        passes += 1
    assert passes == max(-(-n // ins_per) for n in counts)
    for i, n in enumerate(counts):
        want = pictures[i]
        for first in range(0, n, ins_per):
            want = want * 3 + masks[i][first : first + ins_per].sum(axis=0)
        assert (i in results) == (n > 0)
        if n:
            np.testing.assert_array_equal(results[i][0].data[0], want)
            np.testing.assert_array_equal(results[i][1].data[:, 0], -masks[i] / 2)


def test_a_picture_without_instances_takes_no_part():
    pictures = [np.full((3, HEIGHT, WIDTH), i, np.float32) for i in range(2)]
    progress, before = SequentialTranslation(Batch(pictures, [masks_of([]), masks_of([2, 1])], 1)), pictures[1][None]
    for _ in range(2):
        assert progress.remaining == [1]
        batch = progress.mini_batch()
        np.testing.assert_array_equal(batch.pictures.data, before)
        ((picture, _),) = progress.advance(*paint(batch))
        before = picture.data
    assert not progress.remaining


def test_without_masks_pictures_are_translated_alone_in_one_pass():
    pictures = [np.full((3, HEIGHT, WIDTH), i, np.float32) for i in range(2)]
    progress = SequentialTranslation(Batch(pictures, [masks_of([3, 2, 1]), masks_of([])], 0))
    assert progress.remaining == [0, 1]
    batch = progress.mini_batch()
    assert (batch.masks.masks.data == -1).all() and batch.earlier is None
    np.testing.assert_array_equal(batch.masks.membership.data, np.eye(2))
    shown = progress.advance(arrays.upload(batch.pictures.data + 5), batch.masks.masks)
    assert not progress.remaining
    for before, (after, own) in zip(pictures, shown):
        np.testing.assert_array_equal(after.data[0], before + 5)
        # D sees an empty mask with it
        assert own.shape == (1, 1, HEIGHT, WIDTH) and (own.data == -1).all()


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 9))
def test_arrays_are_cut_and_joined(counts, seed):
    values = np.random.default_rng(seed).normal(size=(sum(counts), 2, HEIGHT, WIDTH)).astype(np.float32)
    parts = arrays.pieces(arrays.upload(values), counts)
    for part, want in zip(parts, np.split(values, np.cumsum(counts)[:-1])):
        np.testing.assert_array_equal(arrays.read(part), want)
    np.testing.assert_array_equal(arrays.read(arrays.concatenate(parts)), values)


def test_a_copy_stays_and_what_is_read_is_ones_own():
    array = arrays.upload(np.zeros((2, 3)))
    copied, read = arrays.copy(array), arrays.read(array)
    changes = array.modification_count
    arrays.read(array)
    # else a GPU would be sent its own numbers again
    assert array.modification_count == changes
    array.data = 1
    read += 2
    assert (arrays.read(copied) == 0).all() and (arrays.read(array) == 1).all()


# translate.Translator

TINY = Architecture(ngf=2, n_blocks=1)


def call(picture, masks):
    """One call of the generator."""
    shapes = ((1,) + picture.shape, (len(masks), 1) + masks.shape[1:], (1, len(masks)))
    inputs = [nn.Variable(shape) for shape in shapes]
    for v, value in zip(inputs, (picture[None], masks[:, None], 1)):
        v.d = value
    with nn.parameter_scope("gen_x2y"):
        y, b = generator(*inputs, TINY, INFERENCE)
    nn.forward_all([y, b])
    return y.d[0].copy(), b.d[:, 0].copy()


def scene(count, height, width):
    rng = np.random.default_rng(count)
    masks = -np.ones((count, height, width), np.float32)
    for i, mask in enumerate(masks):
        mask[2 * i + 1 : 2 * i + 6, i + 2 : 2 * i + 9] = 1
    return rng.uniform(-1, 1, (3, height, width)).astype(np.float32), masks


@pytest.fixture
def weights():
    create_parameters(TINY, np.random.RandomState(0), ["gen_x2y"])


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("count, ins_per", [(1, 2), (3, 3), (2, 5)])
def test_one_pass_is_one_call_of_the_generator(count, ins_per):
    """A size that is a multiple of 4 is not padded either."""
    picture, masks = scene(count, 20, 24)
    for got, want in zip(Translator("gen_x2y", TINY, ins_per).translate(picture, masks), call(picture, masks)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("weights")
def test_a_model_without_masks_sees_the_picture_alone():
    picture, masks = scene(3, 20, 24)
    y, b = Translator("gen_x2y", TINY, 0).translate(picture, masks)
    np.testing.assert_allclose(y, call(picture, -np.ones((1, 20, 24), np.float32))[0], rtol=0, atol=1e-5)
    assert b.shape == (0, 20, 24)


@pytest.mark.usefixtures("weights")
def test_several_passes_are_calls_one_after_another():
    picture, masks = scene(5, 20, 24)
    got = Translator("gen_x2y", TINY, 2).translate(picture, masks)
    want, translated = picture, []
    for first in (0, 2, 4):
        want, b = call(want, masks[first : first + 2])
        translated.append(b)
    np.testing.assert_allclose(got[0], want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got[1], np.concatenate(translated), rtol=0, atol=1e-5)
    assert np.abs(got[0] - call(picture, masks)[0]).max() > 1e-3, "one pass has the same result; this shows nothing"


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("height, width", [(17, 24), (20, 22), (19, 21), (18, 23)])
def test_any_size_comes_back_at_its_size(height, width):
    """The picture is padded by mirroring at the last row and column, and the result is cropped back."""
    picture, masks = scene(2, height, width)
    got = Translator("gen_x2y", TINY, 2).translate(picture, masks)
    assert [v.shape for v in got] == [(3, height, width), (2, height, width)]
    rows = [*range(height), *range(height - 2, -1, -1)][: -(-height // 4) * 4]
    columns = [*range(width), *range(width - 2, -1, -1)][: -(-width // 4) * 4]
    y, b = call(picture[:, rows][:, :, columns], masks[:, rows][:, :, columns])
    np.testing.assert_allclose(got[0], y[:, :height, :width], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got[1], b[:, :height, :width], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("weights")
def test_a_translator_takes_one_picture_after_another():
    """Pictures of other or the same sizes and counts do not affect each other, and earlier results stay."""
    translator = Translator("gen_x2y", TINY, 2)
    scenes = [scene(2, 20, 24), scene(3, 20, 24), scene(1, 21, 16), scene(0, 21, 18), scene(2, 20, 24)]
    scenes.append((-scenes[-1][0], scenes[-1][1][::-1]))
    results = [translator.translate(*one) for one in scenes]
    for (picture, masks), got in zip(scenes, results):
        want = Translator("gen_x2y", TINY, 2).translate(picture, masks)
        np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(got[1], want[1], rtol=0, atol=1e-6)
        assert got[1].shape == masks.shape
        if not len(masks):
            np.testing.assert_array_equal(got[0], picture)
