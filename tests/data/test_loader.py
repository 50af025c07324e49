# SPDX-License-Identifier: Apache-2.0
"""The data source, with pictures that encode their own coordinates: R is the column, G the row, B the picture."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from data import pictures
from data.items import Item
from data.loader import DataIterator, DomainSource, Draw

LOAD, FINE = (13, 18), (8, 12)
PICTURES = 5
ROWS, COLUMNS = np.mgrid[0 : LOAD[0], 0 : LOAD[1]]


def mask_of(picture, number):
    """The true mask: scattered pixels without any regularity, the more the higher its number; None is a free slot."""
    return np.random.default_rng([picture, number]).random(LOAD) < 0.1 + 0.2 * number


def coordinates(picture):
    return np.stack([COLUMNS, ROWS, np.full(LOAD, picture)], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Picture i has i masks, numbered 0, 2, 4, ..."""
    folder = tmp_path_factory.mktemp("coordinates")
    made = []
    for i in range(PICTURES):
        Image.fromarray(coordinates(i)).save(folder / f"{i}.png")
        masks = {2 * j: folder / f"{i}_{2 * j}.png" for j in range(i)}
        for j, path in enumerate(masks.values()):
            Image.fromarray(mask_of(i, j)).save(path)
        made.append(Item(str(i), folder / f"{i}.png", masks))
    return made


def source_of(items, ins_max=None, set_order="decreasing", flip=True, **more):
    return DomainSource(items, LOAD, FINE, ins_max, set_order, flip, **more)


def decode(sample):
    """The (row, column) that each pixel of a sample came from, by its colours, and the number of its picture."""
    colours = pictures.to_picture(sample.picture).astype(int)
    assert (colours[..., 2] == int(sample.name)).all()
    return colours[..., 1], colours[..., 0], int(sample.name)


def window(sample):
    """(top, left, flipped) of a sample; fails where its pixels are not a crop of the picture."""
    rows, columns, _ = decode(sample)
    flipped = columns[0, 0] > columns[0, -1]
    top, left = rows.min(), columns.min()
    expected_rows, expected_columns = np.mgrid[top : top + FINE[0], left : left + FINE[1]]
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(columns, expected_columns[:, ::-1] if flipped else expected_columns)
    return int(top), int(left), bool(flipped)


def check(sample):
    """The masks of a sample are those of its picture at the very pixels that it shows, without the empty ones."""
    rows, columns, picture = decode(sample)
    truth = [mask_of(picture, j)[rows, columns] for j in range(picture)]
    truth = [m for m in truth if m.any()]
    assert sample.masks.shape == (len(truth), *FINE) and sample.masks.dtype == np.float32
    assert set(np.unique(sample.masks)) <= {-1.0, 1.0}
    shown = [tuple((m > 0).ravel()) for m in sample.masks]
    assert Counter(shown) == Counter(tuple(m.ravel()) for m in truth)


# --- one sample -------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    index=st.integers(0, PICTURES - 1),
    top=st.integers(0, LOAD[0] - FINE[0]),
    left=st.integers(0, LOAD[1] - FINE[1]),
    flip=st.booleans(),
    order=st.sampled_from(["decreasing", "random"]),
)
def test_picture_and_masks_are_cropped_and_flipped_as_one(items, index, top, left, flip, order):
    sample = source_of(items, set_order=order).read(Draw(index, top, left, flip, 1))
    assert sample.picture.shape == (3, *FINE) and sample.picture.dtype == np.float32
    assert window(sample) == (top, left, flip)
    check(sample)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, PICTURES - 1))
def test_whatever_chance_draws_is_a_window_of_the_picture(items, seed, index):
    source = source_of(items)
    sample = source.read(source.draw(index, np.random.default_rng(seed)))
    window(sample)
    check(sample)


def test_all_offsets_occur_and_half_of_the_pictures_are_flipped(items):
    source, rng = source_of(items), np.random.default_rng(0)
    draws = [source.draw(0, rng) for _ in range(4000)]
    assert Counter(d.top for d in draws).keys() == set(range(LOAD[0] - FINE[0] + 1))
    assert Counter(d.left for d in draws).keys() == set(range(LOAD[1] - FINE[1] + 1))
    for counts in (Counter(d.top for d in draws), Counter(d.left for d in draws)):
        assert max(counts.values()) < 1.3 * min(counts.values()), "every offset is as likely as the others"
    # 4000 draws: the standard deviation is 32
    assert abs(sum(d.flip for d in draws) - 2000) < 160
    flipped_left = [d.left for d in draws if d.flip]
    assert abs(np.mean(flipped_left) - (LOAD[1] - FINE[1]) / 2) < 0.2, "the flip does not depend on the offset"


def test_no_flip(items):
    source, rng = source_of(items, flip=False), np.random.default_rng(0)
    assert not any(source.draw(0, rng).flip for _ in range(200))


def test_no_choice_where_the_crop_is_the_whole_picture(items):
    source = DomainSource(items, LOAD, LOAD, None, "decreasing", False)
    sample = source.read(source.draw(3, np.random.default_rng(5)))
    np.testing.assert_array_equal(pictures.to_picture(sample.picture), coordinates(3))


def test_pictures_are_resized_to_load_size(tmp_path):
    Image.fromarray(np.full((40, 10, 3), 90, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "a_0.png")
    source = source_of([Item("a", tmp_path / "a.png", {0: tmp_path / "a_0.png"})])
    sample = source.read(Draw(0, 5, 6, False, 0))
    assert (pictures.to_picture(sample.picture) == 90).all() and sample.picture.shape == (3, *FINE)
    assert (sample.masks == 1).all() and sample.masks.shape == (1, *FINE)


# --- which instances, in which order ----------------------------------------------------------------------------------


def areas(sample):
    return [int((m > 0).sum()) for m in sample.masks]


@pytest.mark.parametrize("seed", range(8))
def test_decreasing_order_and_ins_max_are_those_of_the_crop(items, seed):
    all_of_them = source_of(items)
    draw = all_of_them.draw(4, np.random.default_rng(seed))
    rows, columns, _ = decode(all_of_them.read(draw))
    truth = sorted((int(mask_of(4, j)[rows, columns].sum()) for j in range(4)), reverse=True)
    assert areas(all_of_them.read(draw)) == truth
    for most in (1, 2, 3, 7):
        assert areas(source_of(items, ins_max=most).read(draw)) == truth[:most]


def test_random_order_is_drawn_anew_and_keeps_the_largest(items):
    source, rng = source_of(items, ins_max=3, set_order="random", flip=False), np.random.default_rng(0)
    orders = Counter()
    for _ in range(240):
        draw = source.draw(4, rng)
        ranked = np.argsort(np.argsort(areas(source.read(draw))))
        assert len(ranked) == 3
        whole = areas(source_of(items, flip=False).read(draw))
        assert sorted(areas(source.read(draw)), reverse=True) == whole[:3]
        orders[tuple(ranked)] += 1
    assert len(orders) == 6 and min(orders.values()) > 15  # 40 of each are expected


def test_the_same_draw_is_the_same_sample(items):
    source = source_of(items, set_order="random")
    draw = source.draw(4, np.random.default_rng(3))
    first, second = source.read(draw), source.read(draw)
    np.testing.assert_array_equal(first.picture, second.picture)
    np.testing.assert_array_equal(first.masks, second.masks)


@pytest.fixture()
def corner_item(tmp_path):
    """Four instances: three single pixels in corners, largest first by number 7, and a bar in the middle (number 1)."""
    boxes = {7: (0, 0, 3, 3), 1: (6, 8, 7, 10), 2: (12, 17, 13, 18), 3: (0, 17, 1, 18)}
    Image.fromarray(coordinates(0)).save(tmp_path / "0.png")
    for number, (top, left, bottom, right) in boxes.items():
        mask = np.zeros(LOAD, bool)
        mask[top:bottom, left:right] = True
        Image.fromarray(mask).save(tmp_path / f"0_{number}.png")
    return Item("0", tmp_path / "0.png", {n: tmp_path / f"0_{n}.png" for n in sorted(boxes)})


def test_instances_that_are_cropped_away_are_dropped(corner_item):
    source = source_of([corner_item])
    assert areas(source.read(Draw(0, 0, 0, False, 0))) == [9, 2]
    assert areas(source.read(Draw(0, 5, 6, False, 0))) == [2, 1]
    assert areas(source.read(Draw(0, 2, 3, False, 0))) == [2]
    assert source.read(Draw(0, 0, 6, True, 0)).masks.shape == (2, *FINE)


def test_ins_max_counts_what_is_left_after_the_crop(corner_item):
    """The largest instance of the whole picture is cropped away: the one after it takes its place."""
    source = source_of([corner_item], ins_max=1)
    assert areas(source.read(Draw(0, 0, 0, False, 0))) == [9]
    assert areas(source.read(Draw(0, 5, 6, False, 0))) == [2]


def test_a_picture_whose_instances_are_all_cropped_away_has_none(tmp_path, corner_item):
    item = Item("0", corner_item.image, {2: corner_item.masks[2]})
    sample = source_of([item]).read(Draw(0, 0, 0, False, 0))
    assert sample.masks.shape == (0, *FINE)


# --- laziness ---------------------------------------------------------------------------------------------------------


def test_how_large_instances_are(tmp_path):
    """The larger of height / 8 and width / 12 of each, and the one in the middle of all; empty masks do not count."""
    sizes = [(4, 3), (2, 9), (1, 3), (2, 2), (0, 0)]
    expected = np.median([4 / 8, 9 / 12, 3 / 12, 2 / 8])
    made = []
    for i, (height, width) in enumerate(sizes):
        mask = np.zeros(LOAD, np.uint8)
        mask[3 : 3 + height, 5 : 5 + width] = 255
        Image.fromarray(mask).save(tmp_path / f"{i}.png")
        made.append(Item(str(i), tmp_path / f"{i}.png", {0: tmp_path / f"{i}.png"}))
    assert source_of(made).instance_share() == expected
    assert source_of(made[-1:]).instance_share() is None
    # larger than any crop
    Image.fromarray(np.full(LOAD, 255, np.uint8)).save(tmp_path / "0.png")
    assert source_of(made[:1]).instance_share() == 1
    assert source_of(made).instance_share(most=2) == 1, "the first and the last, which is empty"


@pytest.fixture()
def decoded(monkeypatch):
    """The names of the pictures that were read from disk, in order."""
    names, original = [], pictures.read_picture

    def counting(path, size=None):
        names.append(Path(path).stem)
        return original(path, size)

    monkeypatch.setattr(pictures, "read_picture", counting)
    return names


def test_nothing_is_read_before_it_is_wanted(items, decoded):
    source = source_of(items)
    source.draw(0, np.random.default_rng(0))
    assert len(source) == PICTURES and not decoded
    source.read(Draw(2, 0, 0, False, 0))
    assert decoded == ["2"]


def test_what_fits_is_read_once(items, decoded):
    source = source_of(items)
    for _ in range(3):
        for i in range(PICTURES):
            source.read(Draw(i, 0, 0, False, 0))
    assert decoded == [str(i) for i in range(PICTURES)]


def test_the_cache_is_bounded_by_bytes(items, decoded):
    """Room for two pictures with four masks each: the third read drops the one that was used longest ago."""
    source = source_of(items, cache_bytes=2 * LOAD[0] * LOAD[1] * (3 + 4))
    for i in (0, 1, 0, 2, 0, 1):
        source.read(Draw(i, 0, 0, False, 0))
    assert decoded == ["0", "1", "2", "1"]


@pytest.mark.parametrize("room", [0, 1, 3])
def test_memory_does_not_grow_with_the_data_set(items, room):
    """The pictures in the cache are counted by the arrays that are alive."""
    import gc
    import weakref

    alive = []
    source = source_of(items * 8, cache_bytes=room * LOAD[0] * LOAD[1] * (3 + 4))
    original = pictures.read_picture

    def watching(path, size=None):
        array = np.array(original(path, size))
        alive.append(weakref.ref(array))
        return array

    try:
        pictures.read_picture = watching
        for i in range(len(source)):
            source.read(Draw(i, 0, 0, False, 0))
    finally:
        pictures.read_picture = original
    gc.collect()
    assert len(alive) == 8 * PICTURES
    assert sum(r() is not None for r in alive) == max(1, room)


def test_a_sample_is_no_view_of_the_cache(items):
    """Writing into a sample must not change the next one."""
    source = source_of(items)
    draw = Draw(3, 1, 2, True, 0)
    first = source.read(draw)
    first.picture[:], first.masks[:] = 0, 0
    assert window(source.read(draw)) == (1, 2, True)
    check(source.read(draw))


# --- the iterator -----------------------------------------------------------------------------------------------------


@pytest.fixture()
def iterator(items):
    made = []

    def make(seed=0, batch_size=1, prefetch=2, of=items, **more):
        made.append(DataIterator(source_of(of, **more), batch_size, np.random.default_rng(seed), prefetch))
        return made[-1]

    yield make
    for i in made:
        i.close()


def take(iterator, batches):
    return [iterator.next() for _ in range(batches)]


def same(first, second):
    """Return whether two lists of batches hold the same samples."""
    pairs = [(a, b) for x, y in zip(first, second) for a, b in zip(x, y)]
    assert [len(b) for b in first] == [len(b) for b in second]
    return all(
        a.name == b.name and np.array_equal(a.picture, b.picture) and np.array_equal(a.masks, b.masks) for a, b in pairs
    )


@pytest.mark.parametrize("prefetch", [0, 1, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_every_round_visits_every_picture_once(iterator, batch_size, prefetch):
    rounds = 6 * batch_size
    batches = take(iterator(batch_size=batch_size, prefetch=prefetch), rounds * PICTURES // batch_size)
    assert all(len(b) == batch_size for b in batches)
    names = [s.name for b in batches for s in b]
    orders = [tuple(names[i : i + PICTURES]) for i in range(0, len(names), PICTURES)]
    assert len(orders) == rounds
    assert all(sorted(o) == [str(i) for i in range(PICTURES)] for o in orders)
    assert len(set(orders)) > 1, "each round has its own order"


def test_augmentation_is_drawn_anew_each_time(iterator):
    windows = {window(s) for b in take(iterator(), 20 * PICTURES) for s in b}
    assert len(windows) > 30


def test_prefetching_changes_nothing(iterator):
    truth = take(iterator(prefetch=0, batch_size=2), 17)
    assert same(take(iterator(prefetch=5, batch_size=2), 17), truth)


def test_seeds(iterator):
    assert same(take(iterator(3, set_order="random"), 12), take(iterator(3, set_order="random"), 12))
    assert not same(take(iterator(3), 12), take(iterator(4), 12))


@settings(max_examples=25, deadline=None)
@given(
    before=st.integers(0, 13),
    batch_size=st.integers(1, 4),
    prefetch=st.integers(0, 4),
    order=st.sampled_from(["decreasing", "random"]),
)
def test_state_goes_through_json_and_resumes_exactly(items, before, batch_size, prefetch, order):
    source = source_of(items, set_order=order)
    going_on = DataIterator(source, batch_size, np.random.default_rng(1), prefetch)
    other = DataIterator(source, batch_size, np.random.default_rng(2), 2)
    take(going_on, before)
    state = json.loads(json.dumps(going_on.state()))
    truth = take(going_on, 9)
    take(other, 4)  # what it has prefetched must not be handed out afterwards
    other.set_state(state)
    assert same(take(other, 9), truth)
    # once more from the same state, into the iterator it came from
    going_on.set_state(state)
    assert same(take(going_on, 9), truth)
    going_on.close()
    other.close()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(items, processes):
    def make(batch_size, **more):
        return DataIterator(source_of(items), batch_size, np.random.default_rng(4), **more)

    alone = make(2 * processes)
    several = [make(2, rank=rank, processes=processes) for rank in range(processes)]
    for _ in range(9):
        assert same([alone.next()], [[sample for one in several for sample in one.next()]])
        # so that any of them can write down for all where the next batch starts
        assert len({json.dumps(one.state()) for one in (alone, *several)}) == 1
    for one in (alone, *several):
        one.close()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_peeking_is_not_taking(iterator, prefetch):
    peeked, left_alone = iterator(5, 2, prefetch), iterator(5, 2, prefetch)
    for batch in take(left_alone, 9):
        before = peeked.state()
        assert same([peeked.peek(), peeked.peek()], [batch, batch])
        assert peeked.state() == before
        assert same([peeked.next()], [batch])


def test_asking_for_the_state_disturbs_nothing(iterator):
    asked, left_alone = iterator(5), iterator(5)
    batches = []
    for _ in range(11):
        asked.state()
        batches.append(asked.next())
        asked.state()
    assert same(batches, take(left_alone, 11))


def test_state_after_a_round_trip_is_the_same_state(iterator):
    first, second = iterator(5), iterator(6)
    take(first, 7)
    second.set_state(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()


def test_prefetching_runs_ahead_in_the_background(iterator, decoded):
    """The next batches are read without a request while this one is used, but not the whole data set."""
    import threading
    import time

    asked = threading.current_thread()
    readers, original = set(), pictures.read_picture

    def noting(path, size=None):
        readers.add(threading.current_thread())
        return original(path, size)

    pictures.read_picture = noting
    try:
        ahead = iterator(prefetch=2)
        ahead.next()
        deadline = time.monotonic() + 100
        while len(decoded) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(decoded) == 3, "the one asked for and two more"
        assert asked not in readers
    finally:
        pictures.read_picture = original


@pytest.mark.parametrize("what", ["picture", "mask", "missing"])
def test_an_unreadable_file_surfaces_where_it_is_asked_for(items, tmp_path, iterator, what):
    broken, mask = tmp_path / "broken.png", tmp_path / "broken_0.png"
    Image.fromarray(coordinates(0)).save(broken)
    Image.fromarray(mask_of(1, 1)).save(mask)
    victim = mask if what == "mask" else broken
    if what == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:40])
    bad = iterator(of=[items[1], Item("broken", broken, {0: mask})])
    with pytest.raises(UserError, match=victim.name):
        take(bad, 2)


def test_close_ends_the_thread(items):
    import threading

    before = threading.active_count()
    iterator = DataIterator(source_of(items), 1, np.random.default_rng(0))
    take(iterator, 3)
    assert threading.active_count() == before + 1
    iterator.close()
    assert threading.active_count() == before
