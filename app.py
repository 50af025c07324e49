# SPDX-License-Identifier: Apache-2.0
"""Open a page to work with in a browser: mark the instances of a photo, translate them, compare.

python app.py --model runs/shapes
python app.py --model runs/shapes --model runs/jeans2skirt --segmenter segmenter.h5 --port 8080

The page, and the REST API that it uses (/api/openapi.json), are for this machine only, unless --host says otherwise.
Ctrl-C ends it. What was uploaded and translated is in a temporary folder, which goes when it ends.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import List

from common import streams
from common.errors import ENDING_SIGNALS, UserError, begin_script, run_main

begin_script(__name__)

from args import app_args
from serving.jobs import Jobs
from serving.networks import Networks
from serving.samples import Sample, find_samples
from serving.translation_job import worker

PACKAGES = ("flask", "waitress")
THREADS = 16  # that answer requests; they mostly wait for disks and for one another
CONNECTIONS = 40  # at the same time; waitress writes a whole body to the disk before anything checks it
BACKLOG = 128  # connections that wait for that
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE_BLOCK = 1 << 20  # bytes
REMOVING_SECONDS = 2.0  # at most, for files that come while the temporary folder is removed


def main() -> None:
    """Run the command line, until Ctrl-C."""
    args = app_args(__doc__)
    check_packages()
    return_large_blocks()
    # before the models are loaded, which takes a while
    listening = listen(args.host, args.port)
    folder = Path(tempfile.mkdtemp(prefix="instagan_"))
    # also for what Flask and waitress write while they receive a request
    tempfile.tempdir = str(folder)
    try:
        networks = Networks(args)
        samples = find_samples(networks.models.values(), folder)
        serve(listening, args.host, networks, samples, folder)
    except KeyboardInterrupt:
        # the usual end
        pass
    finally:
        remove(folder)
    print("stopped", flush=True)
    # a pass in the networks' thread cannot be interrupted, and Python would wait for its end
    os._exit(0)


def remove(folder: Path) -> None:
    """Remove the temporary folder; a second Ctrl-C, or another signal, does not stop that."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *ENDING_SIGNALS)}
    tempfile.tempdir = None
    end = time.monotonic() + REMOVING_SECONDS
    shutil.rmtree(folder, ignore_errors=True)
    # the other threads still run, and may write files meanwhile
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def check_packages() -> None:
    """Raise UserError if a package is missing that only this script needs."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"app.py needs {' and '.join(missing)}; install it: pip install -r requirements-app.txt")


def return_large_blocks() -> None:
    """Have the allocator return large blocks to the system as soon as they are free.

    By default glibc keeps blocks of up to 32 MB, such as Pillow decodes photos into, for each thread: after photos of
    24 megapixels in each of the threads that answer requests, that would be some GB.
    """
    if sys.platform == "linux":
        # other C libraries lack it
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`.

    Raises:
        UserError: where that is not possible.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        # a port whose server has just ended is free; on Windows this would share that of a running one
        if os.name != "nt":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        return listening
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {host} is no address of this machine; leave it out, or give 0.0.0.0") from None
        if error.errno == errno.EADDRINUSE:
            fix = f"give another, such as --port {port % 65535 + 1}, or end the program that uses it"
            raise UserError(f"port {port} is in use; {fix}") from None
        if error.errno == errno.EACCES:
            fix = "give one from 1024 up, such as --port 8000"
            raise UserError(f"port {port} is reserved for the system's administrator; {fix}") from None
        raise


def serve(listening: socket.socket, host: str, networks: Networks, samples: List[Sample], folder: Path) -> None:
    """Answer requests until Ctrl-C."""
    # they exist only where requirements-app.txt is installed
    import waitress

    from serving.api import Api, create_app
    from serving.safety import MOST_BODY_BYTES, is_loopback

    api = Api(networks, Jobs(worker(networks)), samples, folder)
    server = waitress.create_server(
        create_app(api, host),
        sockets=[listening],
        threads=THREADS,
        connection_limit=CONNECTIONS,
        # Flask, whose answer has a reason, refuses what is a little too large before waitress does
        max_request_body_size=MOST_BODY_BYTES + (1 << 20),
        ident=None,
    )
    name = f"[{host}]" if ":" in host else host
    if not is_loopback(host):
        warning = "everybody who reaches this machine can use it, without a password, and nothing is encrypted"
        print(f"--host {host}: {warning}", file=sys.stderr)
        name = socket.gethostname() if host in ("0.0.0.0", "::") else name
    print(f"open http://{name}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
    # translations go on without them
    streams.outlive_readers()
    server.run()


if __name__ == "__main__":
    run_main(main)
