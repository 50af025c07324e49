# SPDX-License-Identifier: Apache-2.0
"""Translations as jobs: a bounded queue, one thread that takes them in turn, and results that are kept for a while.

A job is `queued`, then `running`, and ends as `done`, `failed` or `cancelled`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Callable, Deque, Dict, List, Sequence

from common.errors import UserError
from data.items import Item
from masks.reader import Box
from serving import failures
from serving.shelf import Bounds, Shelf, size_of_folder

MOST_QUEUED = 32
MOST_QUEUED_BYTES = 1 << 30
KEPT = Bounds(things=200, total_bytes=1 << 30, seconds=30 * 60)
PICTURE = "image"  # the name of a job's picture in its folder
USUAL_SECONDS = 2.0  # of a job, until one has been measured


@dataclass
class Job:
    """One translation that was asked for, and its state.

    `item` is the picture with its mask files, all in `folder`, under names of our own; `boxes` or `segment` (find the
    instances with the segmenter) stand in for mask files. `select` are the numbers of the instances to translate (None:
    all). `name` is the picture's name as its user knows it. Once the job runs, `done` of `total` instances are
    translated. `files` of the result are those of the API, by the last part of their addresses.
    """

    folder: Path
    name: str
    item: Item
    model: str
    direction: str
    boxes: Sequence[Box] = ()
    segment: bool = False
    select: Sequence[int] | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = "queued"
    done: int = 0
    total: int | None = None
    seconds: float | None = None
    error: str = ""
    remarks: List[str] = field(default_factory=list)
    files: Dict[str, Path] = field(default_factory=dict)
    masks: List[int] = field(default_factory=list)

    def fail(self, error: UserError) -> None:
        """Note why the job failed, with the names that its user knows."""
        self.error = in_words(error, self.folder, self.name)


def in_words(error: UserError, folder: Path, name: str) -> str:
    """The message of an error about files in `folder`, without its path; the picture there is called `name`."""
    return str(error).replace(str(folder / PICTURE), f'"{name}"').replace(f"{folder}{os.sep}", "")


class Full(Exception):
    """The queue takes no more, for this `reason`; try again after about `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(f"{reason}; try again in about {retry_after} s")
        self.retry_after = retry_after


class Cancelled(Exception):
    """Raised in the thread that works on a job once nobody wants its result any more."""


class Jobs:
    """All jobs. `work` translates one; between its passes it must call `check`.

    Each method may be called from any thread.
    """

    def __init__(self, work: Callable[[Job, Jobs], None]) -> None:
        self._work = work
        self._changed = Condition()
        self._queue: Deque[Job] = deque()
        self._queued_bytes: Dict[str, int] = {}
        self._running: Job | None = None
        self._ended = Shelf(KEPT)
        self._usual_seconds = USUAL_SECONDS
        Thread(target=self._run, name="jobs", daemon=True).start()

    def add(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            Full: if there is no room for it.
        """
        size = size_of_folder(job.folder)
        with self._changed:
            ahead = self._ahead_of_room(size)
            if ahead:
                reason = f"{len(self._queue)} translations are waiting already"
                if len(self._queue) < MOST_QUEUED:
                    reason += f", and their files leave no room for these ({MOST_QUEUED_BYTES >> 20} MB in all)"
                raise Full(reason, max(1, round(self._usual_seconds * ahead)))
            self._queue.append(job)
            self._queued_bytes[job.id] = size
            self._changed.notify()

    def find(self, id: str) -> Job | None:
        """The job with this id; None if there is none, or not any more."""
        with self._changed:
            for job in (self._running, *self._queue):
                if job and job.id == id:
                    return job
        return self._ended.get(id)

    def position(self, job: Job) -> int | None:
        """The number of jobs before a queued one, with that which runs; None if it is not queued."""
        with self._changed:
            return self._queue.index(job) + (self._running is not None) if job in self._queue else None

    @property
    def waiting(self) -> int:
        """The length of the queue."""
        return len(self._queue)

    def cancel(self, job: Job) -> bool:
        """Cancel a job: a queued one at once, a running one between two passes. Returns False if it has ended."""
        with self._changed:
            # a running one that was cancelled before has not ended yet
            if job.state != "queued" and job is not self._running:
                return False
            if job.state == "queued":
                self._queue.remove(job)
                del self._queued_bytes[job.id]
                self._ended.put(job.id, job, job.folder)
            job.state = "cancelled"
            return True

    def forget(self, job: Job) -> None:
        """Delete a job that has ended, with its files."""
        self._ended.drop(job.id)

    def check(self, job: Job) -> None:
        """Raise Cancelled if a running job was cancelled."""
        if job.state != "running":
            raise Cancelled

    def _ahead_of_room(self, size: int) -> int:
        """The number of queued jobs that have to leave the queue before a job of `size` bytes has room there."""
        ahead = max(0, len(self._queue) - MOST_QUEUED + 1)
        sizes = [self._queued_bytes[job.id] for job in self._queue]
        # one job has room whatever its size
        while ahead < len(sizes) and sum(sizes[ahead:]) + size > MOST_QUEUED_BYTES:
            ahead += 1
        return ahead

    def _run(self) -> None:
        """Translate the queued jobs one after the other, for ever."""
        while True:
            with self._changed:
                while not self._queue:
                    # now and then what is too old goes, also if nobody asks for anything
                    self._changed.wait(timeout=60)
                    self._ended.tidy()
                job = self._queue.popleft()
                self._running = job
                del self._queued_bytes[job.id]
                job.state = "running"
            start = time.monotonic()
            state = "failed"
            try:
                state = self._attempt(job)
            finally:
                self._end(job, state, time.monotonic() - start)

    def _attempt(self, job: Job) -> str:
        """Translate a job; return the state it ends in."""
        try:
            self._work(job, self)
            return "done"
        except Cancelled:
            return "cancelled"
        except UserError as error:
            job.fail(error)
        except Exception as error:
            _, job.error = failures.explain(error, "a translation")
        return "failed"

    def _end(self, job: Job, state: str, seconds: float) -> None:
        """Put a job that ran into its last state, and keep it if it has a result."""
        job.seconds = seconds
        if state == "done":
            self._usual_seconds += 0.2 * (seconds - self._usual_seconds)
        with self._changed:
            # a job that was cancelled in its last pass stays so
            job.state = state if job.state == "running" else job.state
            if job.state != "done":
                job.files.clear()
                shutil.rmtree(job.folder, ignore_errors=True)
            self._ended.put(job.id, job, job.folder)
            self._running = None
