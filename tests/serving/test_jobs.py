# SPDX-License-Identifier: Apache-2.0
"""The queue and its worker, and what is kept for how long."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import List

import pytest

from common.errors import UserError
from data.items import Item
from serving import jobs as jobs_module
from serving.jobs import Full, Job, Jobs
from serving.shelf import Bounds, Shelf


class Work:
    """Work of `passes` steps, each of which waits until `go` is set; `order` are the jobs that began."""

    made: List[Work] = []

    def __init__(self, passes=1):
        self.go = threading.Event()
        self.passes = passes
        self.order = []
        Work.made.append(self)

    def __call__(self, job, jobs):
        self.order.append(job)
        for _ in range(self.passes):
            jobs.check(job)
            assert self.go.wait(30)
            job.done += 1
        jobs.check(job)
        job.files["picture"] = job.folder / "picture.png"


@pytest.fixture(autouse=True)
def no_job_waits_on():
    """After a test all work may end: a thread that waits would fail later, in the output of another test."""
    yield
    for work in Work.made:
        work.go.set()
    Work.made.clear()


@pytest.fixture()
def new_job(tmp_path):
    """`new_job()` makes a job with a folder and a file in it."""

    def make(size=10):
        folder = tmp_path / f"job{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "image").write_bytes(bytes(size))
        return Job(folder, "photo", Item("photo", folder / "image"), "model", "AtoB")

    return make


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def add_running(jobs, job):
    """Add a job to an idle queue, and wait until it runs."""
    jobs.add(job)
    wait_for(lambda: job.state == "running")


def test_jobs_run_one_after_the_other_in_order(new_job):
    work = Work()
    jobs = Jobs(work)
    added = [new_job() for _ in range(4)]
    for job in added:
        jobs.add(job)
    wait_for(lambda: added[0].state == "running")
    assert [job.state for job in added[1:]] == ["queued"] * 3
    assert [jobs.position(job) for job in added] == [None, 1, 2, 3] and jobs.waiting == 3
    assert all(jobs.find(job.id) is job for job in added) and jobs.find("other") is None
    work.go.set()
    wait_for(lambda: added[-1].state == "done")
    assert work.order == added and jobs.waiting == 0
    assert all(jobs.find(job.id) is job and job.state == "done" for job in added)


def test_a_full_queue_takes_no_more_until_there_is_room(new_job, monkeypatch):
    monkeypatch.setattr(jobs_module, "MOST_QUEUED", 2)
    work = Work()
    jobs = Jobs(work)
    add_running(jobs, new_job())
    for _ in range(2):
        jobs.add(new_job())
    with pytest.raises(Full, match="2 translations are waiting already; try again in about 2 s") as full:
        jobs.add(new_job())
    assert full.value.retry_after == 2
    work.go.set()
    wait_for(lambda: jobs.waiting < 2)
    jobs.add(new_job())


def test_the_queue_is_bounded_in_bytes(new_job, monkeypatch):
    monkeypatch.setattr(jobs_module, "MOST_QUEUED_BYTES", 1000)
    jobs = Jobs(Work())
    add_running(jobs, new_job())
    # one is taken whatever its size
    jobs.add(new_job(5000))
    with pytest.raises(Full, match="1 translations are waiting already, and their files leave no room.* about 2 s"):
        jobs.add(new_job())


def test_the_time_of_a_new_try_counts_the_jobs_whose_files_have_to_go(new_job, monkeypatch):
    monkeypatch.setattr(jobs_module, "MOST_QUEUED_BYTES", 1000)
    work = Work()
    jobs = Jobs(work)
    add_running(jobs, new_job())
    for size in (300, 300, 300):
        jobs.add(new_job(size))
    for size, jobs_to_go in ((101, 1), (400, 1), (401, 2), (5000, 3)):
        with pytest.raises(Full) as full:
            jobs.add(new_job(size))
        assert full.value.retry_after == jobs_to_go * jobs_module.USUAL_SECONDS
    jobs.add(new_job(100))
    work.go.set()


def test_a_queued_job_is_cancelled_at_once(new_job):
    work = Work()
    jobs = Jobs(work)
    running, queued, last = new_job(), new_job(), new_job()
    for job in (running, queued, last):
        jobs.add(job)
    wait_for(lambda: running.state == "running")
    assert jobs.cancel(queued) and queued.state == "cancelled" and jobs.position(last) == 1
    assert jobs.find(queued.id) is queued and not jobs.cancel(queued)
    work.go.set()
    wait_for(lambda: last.state == "done")
    assert work.order == [running, last]
    jobs.forget(queued)
    assert jobs.find(queued.id) is None and not queued.folder.exists()


def test_a_running_job_is_cancelled_between_two_passes(new_job):
    work = Work(passes=1000)
    jobs = Jobs(work)
    job, other = new_job(), new_job()
    jobs.add(job)
    jobs.add(other)
    wait_for(lambda: job.state == "running")
    assert jobs.cancel(job) and job.state == "cancelled"
    # it has not ended yet
    assert jobs.cancel(job) and jobs.find(job.id) is job
    work.go.set()
    wait_for(lambda: other.state == "done")
    assert job.state == "cancelled" and job.done == 1 and not job.files and not job.folder.exists()


@pytest.mark.parametrize(
    "error, words",
    [
        (UserError("{folder}/image cannot be read: it is damaged"), '"photo" cannot be read: it is damaged'),
        (UserError("{folder}/mask_3 is not a file"), "mask_3 is not a file"),
        (MemoryError(), "not enough memory for this picture; use a smaller one"),
        (OSError(28, "No space left on device", "/tmp/secret"), "(No space left on device); make room"),
        (OSError(5, "Input/output error", "/tmp/secret"), "could not read or write a file (Input/output error)"),
        (RuntimeError("Failed to allocate memory for /tmp/secret"), "not enough memory for this picture"),
        (ValueError("/tmp/secret"), "an unexpected error, which is a bug"),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_one_runs(new_job, error, words):
    failing = new_job()
    if isinstance(error, UserError):
        error = UserError(str(error).format(folder=failing.folder))

    def work(job, jobs):
        if job is failing:
            raise error

    jobs = Jobs(work)
    after = new_job()
    for job in (failing, after):
        jobs.add(job)
    wait_for(lambda: after.state == "done")
    assert failing.state == "failed" and words in failing.error and "secret" not in failing.error
    assert str(failing.folder) not in failing.error and not failing.folder.exists()


class Unwritable:
    """A stream that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError

    flush = write


def test_a_terminal_that_cannot_be_written_to_stops_nothing(new_job, monkeypatch):
    failing, after = new_job(), new_job()

    def work(job, jobs):
        if job is failing:
            raise ValueError("a bug")

    monkeypatch.setattr("sys.stderr", Unwritable())
    jobs = Jobs(work)
    for job in (failing, after):
        jobs.add(job)
    wait_for(lambda: after.state == "done")
    assert failing.state == "failed" and "a bug" in failing.error


def test_many_threads_lose_no_job(new_job):
    """Jobs that are added, cancelled and asked for by several threads at once end exactly once."""

    def work(job, jobs):
        jobs.check(job)
        job.done += 1

    jobs = Jobs(work)
    prepared = [[new_job() for _ in range(40)] for _ in range(6)]
    cancelled = []

    def use(own):
        for number, job in enumerate(own):
            while True:
                try:
                    jobs.add(job)
                    break
                except Full:
                    time.sleep(0.001)
            assert jobs.find(job.id) is job
            jobs.position(job)
            if number % 5 == 0 and jobs.cancel(job):
                cancelled.append(job)

    threads = [threading.Thread(target=use, args=(own,)) for own in prepared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    every = [job for own in prepared for job in own]
    wait_for(lambda: all(job.state in ("done", "cancelled") for job in every))
    assert {id(job) for job in every if job.state == "cancelled"} == {id(job) for job in cancelled}
    assert all(job.done == 1 for job in every if job.state == "done")


# --- the shelf --------------------------------------------------------------------------------------------------------


def put(shelf, folder, size=100):
    folder.mkdir()
    (folder / "file").write_bytes(bytes(size))
    shelf.put(folder.name, folder.name.upper(), folder)


def test_the_shelf_keeps_the_last_used_things(tmp_path):
    shelf = Shelf(Bounds(3, 10_000, 60))
    for name in "abc":
        put(shelf, tmp_path / name)
    assert shelf.get("a") == "A"
    put(shelf, tmp_path / "d")
    assert [shelf.get(name) for name in "abcd"] == ["A", None, "C", "D"]
    assert sorted(os.listdir(tmp_path)) == ["a", "c", "d"]
    shelf.drop("c")
    shelf.drop("c")
    assert shelf.get("c") is None and sorted(os.listdir(tmp_path)) == ["a", "d"]


def test_the_shelf_is_bounded_in_bytes_but_keeps_the_newest(tmp_path):
    shelf = Shelf(Bounds(10, 250, 60))
    for name in "abc":
        put(shelf, tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    put(shelf, tmp_path / "d", 9000)
    assert os.listdir(tmp_path) == ["d"] and shelf.get("d") == "D"
    put(shelf, tmp_path / "e")
    assert os.listdir(tmp_path) == ["e"]


def test_old_things_leave_the_shelf(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shelf = Shelf(Bounds(10, 10_000, 60))
    put(shelf, tmp_path / "a")
    put(shelf, tmp_path / "b")
    now[0] += 50
    assert shelf.get("b") == "B"
    now[0] += 50
    assert shelf.get("a") is None and shelf.get("b") == "B"
    assert os.listdir(tmp_path) == ["b"]
    now[0] += 61
    shelf.tidy()
    assert os.listdir(tmp_path) == []


def test_folders_are_as_large_as_their_files(tmp_path):
    (tmp_path / "sub").mkdir()
    Path(tmp_path / "sub" / "one").write_bytes(bytes(30))
    Path(tmp_path / "two").write_bytes(bytes(12))
    assert jobs_module.size_of_folder(tmp_path) == 42
    # one that has gone meanwhile
    assert jobs_module.size_of_folder(tmp_path / "gone") == 0
