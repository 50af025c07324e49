# SPDX-License-Identifier: Apache-2.0
"""The image pool: the items it returns, and how often it swaps."""

from __future__ import annotations

import numpy as np
import pytest

from training.image_pool import ImagePool


def item(number):
    """A translation that is recognized by its value, with any number of masks."""
    return np.full((3, 2, 2), number, np.float32), np.full((number % 3, 2, 2), number, np.float32)


def queries(pool, numbers):
    """The numbers of the items that the pool returns for items of `numbers`; picture and masks belong together."""
    found = []
    for number in numbers:
        picture, masks = pool.query(item(number))
        found.append(int(picture[0, 0, 0]))
        assert masks.shape[0] == found[-1] % 3
        assert (masks == found[-1]).all()
    return found


def test_it_hands_back_what_it_is_given_until_it_is_full():
    pool = ImagePool(50, np.random.default_rng(0))
    given = [item(i) for i in range(50)]
    assert all(pool.query(one) is one for one in given)
    assert len(pool.items) == 50


def test_without_size_it_hands_back_everything():
    pool = ImagePool(0, np.random.default_rng(0))
    assert queries(pool, range(200)) == list(range(200))
    assert pool.items == []


@pytest.mark.parametrize("size", [1, 5])
def test_a_full_pool(size):
    pool, count = ImagePool(size, np.random.default_rng(1)), 4000
    assert queries(pool, range(size)) == list(range(size))
    held, swaps, replaced = set(range(size)), 0, np.zeros(size)
    for number in range(size, size + count):
        before = [int(picture[0, 0, 0]) for picture, _ in pool.items]
        (got,) = queries(pool, [number])
        after = [int(picture[0, 0, 0]) for picture, _ in pool.items]
        assert len(after) == size
        if got == number:
            assert after == before
        else:
            # an earlier one, which leaves; the new one takes its place
            assert got in held
            place = before.index(got)
            assert after == before[:place] + [number] + before[place + 1 :]
            held = held - {got} | {number}
            swaps += 1
            replaced[place] += 1
    # five standard deviations around 1/2, and around equal shares for the places
    assert abs(swaps - count / 2) < 5 * (count / 4) ** 0.5
    share = swaps / size
    assert (abs(replaced - share) <= 5 * share**0.5).all()


def test_it_is_seeded():
    def run(seed):
        return queries(ImagePool(4, np.random.default_rng(seed)), range(60))

    assert run(3) == run(3)
    assert run(3) != run(4)
