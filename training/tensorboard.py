# SPDX-License-Identifier: Apache-2.0
"""Event files for TensorBoard: what the series hold, and the sample pictures.

They are written with tensorboardX, as NNabla's own graph writer does, but without its thread: there an error of the
disk would be lost, and training would wait forever for a queue that nobody empties. This module can be imported only
where tensorboardX is installed.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class EventFile:
    """The event file of a run in `folder`; a resumed run adds another one, which TensorBoard reads as its continuation.

    Steps are iterations from 0, as in the series. An event is on the disk when its method returns, so that a killed run
    loses none. Where that fails, it is reported once and nothing more is written, but training goes on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Optional[EventsWriter] = None

    def begin(self, step: int) -> None:
        """Start a file; TensorBoard then forgets what earlier files of the folder hold from `step` on."""

        def start() -> None:
            self._folder.mkdir(exist_ok=True)
            # two runs within a second would write into the same file
            self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
            self._add(step, session_log=SessionLog(status=SessionLog.START))

        self._attempt(start)

    def add_values(self, step: int, values: Dict[str, float]) -> None:
        """Add a point to the curve of each name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._attempt(lambda: self._add(step, summary=Summary(value=points)))

    def add_picture(self, step: int, name: str, path: Path) -> None:
        """Add a PNG file to the pictures of a name."""
        png = path.read_bytes()
        width, height = Image.open(io.BytesIO(png)).size
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._attempt(lambda: self._add(step, summary=Summary(value=[Summary.Value(tag=name, image=picture)])))

    def _add(self, step: int, **contents: Any) -> None:
        if self._writer:
            self._writer.write_event(Event(wall_time=time.time(), step=step, **contents))
            self._writer.flush()

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._writer = None
            problem = error.strerror or error
            print(f"cannot write into {self._folder} ({problem}); training goes on without it", file=sys.stderr)
