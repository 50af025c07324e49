# SPDX-License-Identifier: Apache-2.0
"""The work on a job: what translate.py --keep-size does with one picture, with progress and a way to stop.

The result is written as translate.py writes it: `images/picture.png`, `masks/picture_{i}.png` and a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Collection, Dict, Iterator, List, Tuple

import numpy as np

from data.items import Item
from serving import instances
from serving.jobs import Job, Jobs
from serving.networks import Networks
from translation.one_picture import prepare, translate_prepared
from translation.placed_mask import PlacedMask
from translation.results import Results, Translation
from translation.selection import Selection

NAME = "picture"  # of the result's files, whatever the picture's name is


def worker(networks: Networks) -> Callable[[Job, Jobs], None]:
    """The `work` of `Jobs`."""
    return lambda job, jobs: translate_job(job, jobs, networks)


def translate_job(job: Job, jobs: Jobs, networks: Networks) -> None:
    """Translate a job's picture, and write the result into its folder.

    Raises:
        Cancelled: between two passes, if the job was cancelled.
        UserError: where a file of the job cannot be used.
    """
    served = networks.models[job.model]
    loaded = served.directions[job.direction]
    run_pass = networks.translate(job.model, job.direction)

    def read_masks(item: Item, picture: np.ndarray) -> Iterator[Tuple[int, np.ndarray]]:
        jobs.check(job)
        for mask in masks_of(job, item, picture, networks):
            jobs.check(job)
            yield mask

    def translate(picture: np.ndarray, masks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        jobs.check(job)
        translated = run_pass(picture, masks)
        job.done += len(masks)
        return translated

    selection = Selection(job.select, True, None, loaded.set_order, 0)
    prepared = prepare(job.item, loaded, read_masks, selection, keep_size=served.needs_masks)
    job.total = len(prepared.chosen)
    job.remarks += remarks_on_empty(prepared.masks, job.select)
    translation = translate_prepared(prepared, loaded, translate)
    jobs.check(job)
    write_result(job, translation)


def masks_of(job: Job, item: Item, picture: np.ndarray, networks: Networks) -> Iterator[Tuple[int, np.ndarray]]:
    """The number and the mask of each instance of a job, (h, w) in [0, 1] or (H, W) bool, from where it has them."""
    if job.segment:
        found = instances.segmented(networks, lambda: picture, job.direction[0], job.remarks)
        return instances.expanded(found, picture.shape[:2])
    if job.boxes:
        return instances.in_boxes(picture, job.boxes, job.remarks)
    return instances.read_levels(item, job.remarks)


def remarks_on_empty(masks: Dict[int, PlacedMask], select: Collection[int] | None) -> List[str]:
    """A remark on each mask, of those that are to be translated, that is empty; one if all of a picture's masks are."""
    empty = [number for number, mask in masks.items() if (select is None or number in select) and not mask.area]
    if empty and len(empty) == len(masks):
        return ["all masks are empty; the picture is left as it is"]
    return [f"mask {number} is empty; nothing is translated there" for number in empty]


def write_result(job: Job, translation: Translation) -> None:
    """Write a translation into the job's folder, and delete what the job came with."""
    folder = job.folder / "result"
    results = Results(folder, overwrite=False)
    results.add(NAME, translation, f"{job.name} ({job.direction})")
    results.write_page()
    for path in job.item.files:
        path.unlink()
    job.masks = sorted(translation.new_masks)
    job.files = result_files(folder, job)


def result_files(folder: Path, job: Job) -> Dict[str, Path]:
    """The files of a result by the last part of their addresses."""
    small = folder / "page" / f"small_{NAME}.png"
    picture = folder / "images" / f"{NAME}.png"
    files = {
        "picture": picture,
        "before": folder / "inputs" / f"{NAME}.png",
        "after": small if small.exists() else picture,
        "outlines_before": folder / "page" / f"before_{NAME}.png",
        "outlines_after": folder / "page" / f"after_{NAME}.png",
        **{f"mask_{number}": folder / "masks" / f"{NAME}_{number}.png" for number in job.masks},
    }
    return {name: path for name, path in files.items() if path.exists()}
