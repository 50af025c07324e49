# SPDX-License-Identifier: Apache-2.0
"""Stop a run by Ctrl-C, SIGTERM or SIGHUP: the first asks it to stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from threading import Thread
from types import FrameType, TracebackType
from typing import Type

from common import streams
from common.errors import ENDING_SIGNALS, stays_ignored

SIGNALS = (signal.SIGINT, *ENDING_SIGNALS)
_END = b"\0"


class Interruption:
    """Within `with`, `signal` is the number of the first SIGINT, SIGTERM or SIGHUP, 0 until one arrives.

    A second one ends the process with exit code 128 + its number. A SIGHUP that is ignored, as under nohup, stays so;
    otherwise it means that nobody reads any more what is printed (`streams.leave_pipes`).

    Python runs signal handlers only between two calls into NNabla, each of which can take seconds; therefore a thread
    waits for the signals.
    """

    def __init__(self, promise: str = "stopping after this iteration, with a checkpoint") -> None:
        """Print `promise`, which says how the run will stop, at the first signal."""
        self.signal = 0
        self._promise = promise

    def __enter__(self) -> Interruption:
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _take_note) for number in SIGNALS if not stays_ignored(number)}
        self._thread = Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: Type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._outbox.send(_END)
        self._thread.join()
        self._inbox.close()
        self._outbox.close()

    def _watch(self) -> None:
        for byte in iter(lambda: self._inbox.recv(1), _END):
            if byte[0] in SIGNALS and self.signal:
                os._exit(128 + byte[0])
            elif byte[0] in SIGNALS:
                self.signal = byte[0]
                # not print(): the main thread may be in the middle of a print; the terminal may be gone
                with suppress(OSError):
                    os.write(2, f"\n{self._promise}; once more ends it at once, without\n".encode())


def _take_note(number: int, frame: FrameType | None) -> None:
    """Handle a signal in the main thread; the thread of `Interruption` does the rest."""
    if number not in (signal.SIGINT, signal.SIGTERM):
        streams.leave_pipes()
