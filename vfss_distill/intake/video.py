"""Films: decoded once, front to back, with the times the file itself gives.

Grey is the luma plane itself, not a conversion of it: exact and about three times as fast. Luma of
video is usually stored in the limited range (16-235); it is expanded to 0-255 unless the stream
says that it is full range, as MJPEG is.

A telephone held upright films lying on its side and notes that players are to turn the picture: so
do we, by quarter turns, and masks are those of the picture turned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from ..errors import InputError
from .film_clock import FilmClock, HeaderClock, picture_numbers
from .interlace import Picture, Untangler
from .source import (
    MAX_PIXELS,
    Frame,
    Interlaced,
    SourceInfo,
    check_size,
    make_square,
    usable_aspect,
)

# A decoder refuses larger pictures before it takes memory for them.
_LIMITS = {"max_pixels": str(MAX_PIXELS)}
# Only containers that hold pictures themselves: a text file named .mp4 must not be read as a
# playlist that makes FFmpeg open other files or addresses.
_OPTIONS = {
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,gif,ogg,dv,"
    "h264,hevc,m4v,mjpeg",
    "protocol_whitelist": "file",
    **_LIMITS,
}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
# What a display matrix does (a b c d: the point x, y is shown at ax + cy, bx + dy), and by how many
# quarters against the clock that turns the picture.
_QUARTERS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
_LUMA_FIRST = ("yuv", "gray", "nv12", "nv16", "nv21", "nv24", "p010", "p016")

av.logging.set_level(None)
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)


@dataclass
class VideoSource:
    """A film file, or the film inside a DICOM file (`data` opens it anew; `times` gives the time of
    its n-th picture where the header knows better, and `declared` how many it says there are).

    Raises InputError at once for what is no film, holds sound only, or is too large; on reading,
    for a film of which not one frame can be decoded. A film that breaks off gives the frames it
    has, and `info.warnings` then says how many of how many.
    """

    path: Path
    kind: str = "video"
    data: Callable[[], IO[bytes]] | None = None
    interlaced: Interlaced = "deinterlace"
    times: Callable[[int], float] | None = None
    declared: int = 0
    decoded: int = field(init=False, default=0)  # pictures of the last reading
    _info: SourceInfo = field(init=False)
    _coded_size: tuple[int, int] = field(init=False)
    _turns: int = field(init=False, default=0)  # quarters, against the clock
    _said: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        with self._open() as container:
            self._info = _describe(container, self.kind, self.path)
            self._coded_size = self._info.stored_size
            if self.data is None:  # viewers of DICOM do not look into the film's container
                self._turns, self._info = _turned(self._info, _quarters(container, self.path))
        self._said = self._info.warnings

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self) -> Iterator[Frame]:
        aspect = self._info.pixel_aspect
        with self._open() as container:
            stream = _pictures(container, self.path)
            stream.thread_type = "AUTO"
            stream.codec_context.options = _LIMITS
            clock = self._clock(container, stream)
            damage = _Damage()
            untangler = Untangler(self.interlaced, stream.codec_context.field_order)
            pictures = self._pictures(_decode(container, stream, damage), clock, damage)
            for index, picture in enumerate(untangler.run(pictures)):
                upright = np.ascontiguousarray(np.rot90(picture.grey, self._turns))
                yield Frame(index, picture.time_s, make_square(upright, aspect))
        if not damage.decoded:
            raise InputError(
                "not one frame can be decoded",
                file=self.path,
                remedy="The file is damaged or cut off: export it again.",
            )
        self._conclude(clock, damage, untangler)

    def _pictures(
        self, decoded: Iterator[Any], clock: FilmClock | HeaderClock, damage: _Damage
    ) -> Iterator[Picture]:
        """Grey pictures with their times, as coded: neither turned nor square."""
        for frame, time_s in clock.times(decoded):
            check_size(frame.height, frame.width, self.path)
            damage.decoded += 1
            damage.corrupt += bool(frame.is_corrupt)
            grey = _fit(_luma(frame), self._coded_size)
            yield Picture(time_s, grey, bool(frame.interlaced_frame))

    def _clock(self, container: Any, stream: Any) -> FilmClock | HeaderClock:
        if self.times is None:
            return FilmClock.of(container, stream)
        with self._open() as again:
            numbers = picture_numbers(again, _pictures(again, self.path), self.declared)
        return HeaderClock(self.times, numbers)

    def _open(self) -> Any:
        # "file:" keeps FFmpeg from taking a colon in a name for a protocol.
        where = self.data() if self.data is not None else f"file:{self.path}"
        try:
            return av.open(where, options=_OPTIONS, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _cannot_open(self.path, error) from error

    def _conclude(
        self, clock: FilmClock | HeaderClock, damage: _Damage, untangler: Untangler
    ) -> None:
        """Add to what is known of the film what only a whole reading can tell."""
        said = list(self._said)
        self.decoded = damage.decoded
        declared = self._info.declared_frames
        if declared is not None and declared != damage.decoded:
            said.append(f"decoded {damage.decoded} of {declared} declared frames")
        elif damage.broke_off or damage.packets:
            said.append(f"decoded {damage.decoded} frames; damaged parts were left out")
        if damage.corrupt:
            said.append(f"decoded {damage.corrupt} frames with visible damage")
        said += [line for line in (clock.warning, untangler.warning) if line]
        self._info = replace(self._info, warnings=tuple(said), interlaced=untangler.handling)


@dataclass
class _Damage:
    decoded: int = 0
    packets: int = 0
    corrupt: int = 0
    broke_off: bool = False


def _describe(container: Any, kind: str, path: Path) -> SourceInfo:
    stream = _pictures(container, path)
    context = stream.codec_context
    check_size(context.height, context.width, path)
    sample = stream.sample_aspect_ratio or Fraction(1)
    aspect = usable_aspect(sample.numerator, sample.denominator)
    said = []
    if aspect == (1, 1) and sample > 0 and sample != 1:
        said.append(f"pixel aspect {sample} is not credible and was ignored")
    return SourceInfo(
        kind=kind,
        codec=context.name,
        declared_frames=stream.frames or None,
        nominal_fps=float(stream.average_rate) if stream.average_rate else None,
        pixel_aspect=aspect,
        warnings=tuple(said),
        stored_size=(context.height, context.width),
    )


def _quarters(container: Any, path: Path) -> int | None:
    """By how many quarters against the clock players turn the picture; None where they mirror it,
    or turn it by other angles.
    """
    stream = _pictures(container, path)
    stream.codec_context.options = _LIMITS
    first = next(_decode(container, stream, _Damage()), None)
    noted = None if first is None else first.side_data.get(Type.DISPLAYMATRIX)
    if noted is None:
        return 0
    matrix = np.frombuffer(noted, np.int32)[[0, 1, 3, 4]].astype(float)
    matrix /= max(np.abs(matrix).max(), 1)  # players do not enlarge either
    a, b, c, d = np.rint(matrix).astype(int).tolist()
    return _QUARTERS.get((a, b, c, d)) if np.allclose(matrix, (a, b, c, d), atol=0.02) else None


def _turned(info: SourceInfo, turns: int | None) -> tuple[int, SourceInfo]:
    """Quarter turns to make, and what the recording says of itself once they are made."""
    if turns is None:
        said = "is to be shown mirrored or turned by part of a quarter, and was left as it is"
        return 0, replace(info, warnings=(*info.warnings, said))
    if not turns:
        return 0, info
    (height, width), (across, down) = info.stored_size, info.pixel_aspect
    if turns % 2:
        height, width, across, down = width, height, down, across
    said = f"turned by {90 * turns} degrees against the clock, as the film says it is to be shown"
    warnings = (*info.warnings, said)
    turned = replace(
        info, stored_size=(height, width), pixel_aspect=(across, down), warnings=warnings
    )
    return turns, turned


def _pictures(container: Any, path: Path) -> Any:
    """The film's picture stream. A cover picture of a sound file is none."""
    cover = av.stream.Disposition.attached_pic
    streams = [item for item in container.streams.video if not item.disposition & cover]
    if streams and streams[0].codec_context is not None and streams[0].codec_context.width:
        return streams[0]
    if streams:
        raise InputError(
            f"holds no picture that can be read: the codec is unknown here, or a frame has more "
            f"than {MAX_PIXELS // 1_000_000} million pixels",
            file=path,
            remedy="Export it again, or as MP4 with H.264.",
        )
    what = "holds sound but no pictures" if container.streams.audio else "holds no pictures"
    raise InputError(what, file=path, remedy="Give the file with the film.")


def _decode(container: Any, stream: Any, damage: _Damage) -> Iterator[Any]:
    """Pictures in order of presentation; damaged packets are counted and left out."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            damage.broke_off = True
            packet = None
        try:
            yield from stream.decode(packet)
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError):
            damage.packets += 1
        if packet is None:
            return


def _luma(picture: Any) -> NDArray[np.uint8]:
    """Grey of one decoded picture, uint8 (H, W), full range, stored pixels."""
    name = picture.format.name
    if name in ("yuyv422", "uyvy422", "yvyu422"):  # packed: the same samples, in planes
        picture = picture.reformat(format="yuv422p")
        name = "yuv422p"
    bits = picture.format.components[0].bits
    if not name.startswith(_LUMA_FIRST) or bits > 16:
        rgb = picture.to_ndarray(format="rgb24")
        grey: NDArray[np.uint8] = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        return grey
    plane = picture.planes[0]
    kind = np.dtype("u1") if bits <= 8 else np.dtype(">u2" if name.endswith("be") else "<u2")
    rows: NDArray[Any] = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)
    luma = rows[: picture.height, : picture.width]
    if name.startswith(("p010", "p016")):  # semi-planar: the value stands in the upper bits
        bits = 16
    full = name.startswith(("yuvj", "gray")) or picture.color_range == _FULL_RANGE
    if full and bits == 8:
        return np.array(luma, np.uint8)
    table = _to_full_range(bits, full)
    if bits == 8:
        expanded: NDArray[np.uint8] = cv2.LUT(luma, table)
        return expanded
    result: NDArray[np.uint8] = table[luma]
    return result


@lru_cache(maxsize=16)
def _to_full_range(bits: int, full: bool) -> NDArray[np.uint8]:
    """Table from stored luma to 0-255. Limited range is 16-235 scaled by 2^(bits-8) (BT.601)."""
    values = np.arange(1 << bits, dtype=np.float64)
    low, high = (0.0, float((1 << bits) - 1)) if full else (16.0, 235.0)
    if not full:
        low, high = low * 2 ** (bits - 8), high * 2 ** (bits - 8)
    scaled = np.rint((values - low) * 255.0 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _fit(grey: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture whose size changed in mid-film, brought to the size the film began with."""
    if grey.shape == size:
        return grey
    resized: NDArray[np.uint8] = cv2.resize(
        grey, (size[1], size[0]), interpolation=cv2.INTER_LINEAR
    )
    return resized


def _cannot_open(path: Path, error: Exception) -> InputError:
    number = getattr(error, "errno", None)
    if isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError):
        reason = getattr(error, "strerror", "") or "cannot be opened"
        return InputError(f"cannot be read ({reason})", file=path, remedy="Check permissions.")
    if path.suffix.lower() in (".mp4", ".mov", ".m4v") and number is not None:
        return InputError(
            "is not a film, or was cut off before its index",
            file=path,
            remedy="Copy or export it again.",
        )
    return InputError(
        "is not a film", file=path, remedy="Give MP4, AVI, MKV, MPG, GIF, DICOM or images."
    )
