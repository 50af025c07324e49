# SPDX-License-Identifier: Apache-2.0
"""Training data: one domain's pictures with their instance masks, read lazily, augmented, prefetched, resumable."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Deque, Dict, List, Sequence, Tuple

import numpy as np

from common.errors import UserError
from common.progress import in_parallel
from data import instances, pictures
from data.items import Item, evenly_spaced
from data.pictures import Size


@dataclass(frozen=True)
class Sample:
    """A picture (3, H, W) and the masks (N, H, W) of its instances, in order, float32 in [-1, 1]; N may be 0."""

    name: str
    picture: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Draw:
    """The random choices for one sample: which picture, where to crop, whether to flip, a seed for the order."""

    index: int
    top: int
    left: int
    flip: bool
    seed: int


class DomainSource:
    """The pictures of one domain, resized to `load_size`, cropped to `fine_size` (both (height, width)).

    Decoded pictures are kept in memory up to `cache_bytes`, the least recently used dropped first. `ins_max` and
    `set_order` choose and order the instances that remain after the crop (`instances.select`).
    """

    def __init__(
        self,
        items: Sequence[Item],
        load_size: Size,
        fine_size: Size,
        ins_max: int | None,
        set_order: str,
        flip: bool,
        cache_bytes: int = 256 << 20,
    ) -> None:
        self.items = list(items)
        self.load_size = load_size
        self.fine_size = fine_size
        self.ins_max = ins_max
        self.set_order = set_order
        self.flip = flip
        most_masks = max(len(item.masks) for item in self.items)
        item_bytes = load_size[0] * load_size[1] * (3 + most_masks)
        self._decoded = lru_cache(max(1, cache_bytes // item_bytes))(self._decode)

        # names and lengths only, so that the data set may move; reading all files would take too long
        files = "\n".join(f"{path.name} {_length(path)}" for item in self.items for path in item.files)
        self.fingerprint = hashlib.sha256(files.encode("utf-8")).hexdigest()

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, index: int, rng: np.random.Generator) -> Draw:
        """Let `rng` decide how picture `index` is augmented."""
        top, left = (int(rng.integers(load - fine + 1)) for load, fine in zip(self.load_size, self.fine_size))
        return Draw(index, top, left, self.flip and bool(rng.integers(2)), int(rng.integers(1 << 31)))

    def read(self, draw: Draw) -> Sample:
        """Read the sample a draw describes; picture and masks are cropped and flipped together."""
        picture, masks = self._decoded(draw.index)
        rows = slice(draw.top, draw.top + self.fine_size[0])
        columns = slice(draw.left, draw.left + self.fine_size[1])
        picture = picture[rows, columns]
        masks = masks[:, rows, columns]
        if draw.flip:
            picture = picture[:, ::-1]
            masks = masks[:, :, ::-1]
        chosen = instances.select(masks, self.ins_max, self.set_order, np.random.default_rng(draw.seed))
        name = self.items[draw.index].name
        return Sample(name, pictures.to_network(picture), pictures.masks_to_network(masks[chosen]))

    def instance_share(self, most: int = 200) -> float | None:
        """The usual size of an instance as a share of the crop, in (0, 1]: its height or width, whichever is larger.

        The median over `most` evenly spaced pictures; None if no mask has an instance.
        """
        paths = [path for item in evenly_spaced(self.items, most) for path in item.masks.values()]
        shares = [share for share in in_parallel(self._share, paths, "sizes of instances") if share > 0]
        return round(min(float(np.median(shares)), 1.0), 4) if shares else None

    def _share(self, mask: Path) -> float:
        """The size of one instance as a share of the crop; 0 for an empty mask."""
        rows, columns = instances.bounding_box(pictures.read_mask(mask, self.load_size))
        height, width = self.fine_size
        return max((rows.stop - rows.start) / height, (columns.stop - columns.start) / width)

    def _decode(self, index: int) -> Tuple[np.ndarray, np.ndarray]:
        return pictures.read_item(self.items[index], self.load_size)


def _length(path: Path) -> int:
    """Bytes in a file; a missing one is reported where it is read."""
    return path.stat().st_size if path.exists() else 0


class DataIterator:
    """Endless batches of samples, shuffled again for each round over the source, prepared in the background.

    With N `processes`, whose generators must have the same state, batches have N * `batch_size` samples, of which the
    process of `rank` 0 gets the first `batch_size`, and so on.

    `state()` describes the batches not yet handed out, prefetched or not, so that an iterator given it by
    `set_state()` continues with the same samples, crops and flips.
    """

    def __init__(
        self,
        source: DomainSource,
        batch_size: int,
        rng: np.random.Generator,
        prefetch: int = 2,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.source = source
        self.prefetch = prefetch
        self._total_batch_size = batch_size * processes
        self._slice_of_rank = slice(rank * batch_size, (rank + 1) * batch_size)
        self._rng = rng
        self._order: List[int] = []
        self._position = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._queue: Deque[Tuple[Dict[str, Any], Future[List[Sample]]]] = deque()

    def next(self) -> List[Sample]:
        """The next batch: a list of `batch_size` samples.

        Raises:
            UserError: if a file cannot be read.
        """
        self._prefetch()
        return self._queue.popleft()[1].result()

    def peek(self) -> List[Sample]:
        """The batch that `next` will return; for `state()` it is not handed out yet.

        Raises:
            UserError: as `next` will.
        """
        self._prefetch()
        return self._queue[0][1].result()

    def state(self) -> Dict[str, Any]:
        """The position of the next batch, as plain values that JSON can hold."""
        return self._queue[0][0] if self._queue else self._now()

    def set_state(self, state: Dict[str, Any]) -> None:
        """Continue from a `state()`; prefetched batches are dropped.

        Raises:
            UserError: if the source has other pictures than it had then.
            KeyError, TypeError or ValueError: if it is not a state.
        """
        if state["pictures"] != self.source.fingerprint:
            folder = self.source.items[0].image.parent
            raise UserError(
                f"{folder} or its masks hold other files than when the run was stopped; bring those back (--dataroot)"
            )
        order = list(state["order"])
        position = state["position"]
        if sorted(order) != list(range(len(self.source)))[: len(order)] or position not in range(len(order) + 1):
            raise ValueError("its order of pictures is not one")
        self._queue.clear()
        self._rng.bit_generator.state = state["rng"]
        self._order = order
        self._position = position

    def close(self) -> None:
        """Stop the background thread."""
        self._pool.shutdown(wait=True)

    def _prefetch(self) -> None:
        while len(self._queue) <= self.prefetch:
            state = self._now()
            draws = [self._draw() for _ in range(self._total_batch_size)][self._slice_of_rank]
            self._queue.append((state, self._pool.submit(lambda draws=draws: [self.source.read(d) for d in draws])))

    def _now(self) -> Dict[str, Any]:
        return {
            "rng": self._rng.bit_generator.state,
            "order": list(self._order),
            "position": self._position,
            "pictures": self.source.fingerprint,
        }

    def _draw(self) -> Draw:
        if self._position == len(self._order):
            self._order = [int(i) for i in self._rng.permutation(len(self.source))]
            self._position = 0
        index = self._order[self._position]
        self._position += 1
        return self.source.draw(index, self._rng)
