# SPDX-License-Identifier: Apache-2.0
"""Stop a run by Ctrl-C or SIGTERM: the first asks it to stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
import socket
from threading import Thread
from types import TracebackType
from typing import Type

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_END = b"\0"


class Interruption:
    """Within `with`, `signal` is the number of the first SIGINT or SIGTERM, 0 until one arrives.

    A second one ends the process with exit code 128 + its number. Python runs signal handlers only between two calls
    into NNabla, each of which can take seconds; therefore a thread waits for the signals.
    """

    def __init__(self, promise: str = "stopping after this iteration, with a checkpoint") -> None:
        """Print `promise`, which says how the run will stop, at the first signal."""
        self.signal = 0
        self._promise = promise

    def __enter__(self) -> Interruption:
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
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
                # not print(): the main thread may be in the middle of a print
                os.write(2, f"\n{self._promise}; once more ends it at once, without\n".encode())
