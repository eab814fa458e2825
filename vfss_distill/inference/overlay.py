"""The overlay film: H.264 that browsers play, one frame per source frame, at the source's times."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ..errors import DataError, DeviceError
from ..provenance import RESEARCH_USE_ONLY
from ..tasks import TaskSet
from .canvas import Canvas, Caption
from .masks import TaskMask

# Holds 24, 25, 30, 1001/30000 and millisecond ticks exactly; anything else to 5.6 µs. An MP4 has 31
# bits from one frame to the next: pauses of 6 hours.
TIME_BASE = Fraction(1, 90_000)

# No B-frames: presentation starts at 0 without an edit list. A key frame at least every 30 frames
# lets a reader step back quickly. Two threads cost no latency and no memory worth naming.
_X264 = {"preset": "veryfast", "crf": "20", "bf": "0", "g": "30", "threads": "2"}
_BT601 = 5  # AVCOL_SPC_BT470BG: the matrix of OpenCV's conversion
_LIMITED_RANGE = 1


class OverlayWriter:
    """Writes an overlay; use as a context manager.

    Leaving it without an error closes the file, opens it again and compares frame count and times
    with what was written. Raises DataError when they differ, DeviceError when the encoder is
    missing, OSError when the disk is full.
    """

    def __init__(
        self, path: Path, height: int, width: int, tasks: TaskSet, caption: Caption
    ) -> None:
        self.path = path
        self.canvas = Canvas(height, width, tasks, caption)
        self._pts: list[int] = []
        options = {"movflags": "+faststart"}
        self._container = av.open(_url(path), "w", format="mp4", options=options)
        self._container.metadata["comment"] = RESEARCH_USE_ONLY
        self._container.metadata["title"] = f"{caption.study} {caption.model}"
        try:
            stream = self._container.add_stream("libx264", rate=30, options=_X264)
        except (ValueError, av.error.FFmpegError) as error:
            self._container.close()
            raise DeviceError(
                "no H.264 encoder in the installed PyAV",
                remedy="Install `av` from PyPI, or use --no-overlay.",
            ) from error
        stream.height, stream.width = self.canvas.size
        stream.pix_fmt = "yuv420p"
        stream.time_base = TIME_BASE
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.color_range = _LIMITED_RANGE
        stream.codec_context.colorspace = _BT601
        self._stream = stream

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # The first error is the one to tell; closing a broken file often fails as well.
            with contextlib.suppress(OSError, av.error.FFmpegError):
                self._container.close()
            return
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        self._verify()

    def add(
        self, grey: NDArray[np.uint8], index: int, time_s: float, masks: Sequence[TaskMask]
    ) -> None:
        """One frame: `index` from 0, `time_s` since the first frame."""
        picture = self.canvas.draw(grey, index, time_s, masks)
        planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        pts = round(time_s / TIME_BASE)
        frame.pts = max(pts, self._pts[-1] + 1) if self._pts else pts
        frame.time_base = TIME_BASE
        self._pts.append(frame.pts)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _verify(self) -> None:
        found = read_times(self.path)
        told = [float(pts * TIME_BASE) for pts in self._pts]
        same = len(found) == len(told) and all(
            abs(a - b) < 1e-4 for a, b in zip(found, told, strict=True)
        )
        if not same:
            raise DataError(
                f"the overlay came back with {len(found)} of {len(told)} frames, or other times",
                file=self.path.name,
                remedy="Use --no-overlay, and tell us the versions that `vfss doctor` prints.",
            )


def _url(path: Path) -> str:
    """Else FFmpeg takes what stands before a colon for a protocol."""
    return f"file:{path}"


def read_times(path: Path) -> list[float]:
    """Presentation times in seconds of every frame of a film, sorted; its first frame decodes."""
    times = []
    with av.open(_url(path)) as container:
        stream = container.streams.video[0]
        times = sorted(
            float(packet.pts * packet.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None
        )
    with av.open(_url(path)) as container:
        if next(iter(container.decode(video=0)), None) is None:
            return []
    return times
