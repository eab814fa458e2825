"""Films and images of more pixels than any screen has: refused before memory is taken."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

from intake_films import write_film

BOMBS = """
import resource, sys, time
from pathlib import Path
from vfss_distill.errors import InputError
from vfss_distill.intake.source import open_source
import vfss_distill.intake.video, vfss_distill.intake.images

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = peak()
for path in map(Path, sys.argv[1:]):
    started = time.perf_counter()
    try:
        source = open_source(path)
        shown = f"{len(list(source.frames()))} frames {source.info.warnings}"
    except InputError as error:
        shown = f"refused: {error}"
    print(path.name, "|", f"{time.perf_counter() - started:.2f}", "|", shown)
print("MiB", peak() - before)
"""


def test_huge_frames_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    paths = [*_huge_films(tmp_path), *_huge_images(tmp_path)]
    words = [sys.executable, "-c", BOMBS, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    *lines, memory = done.stdout.splitlines()
    assert done.stderr == "" and len(lines) == len(paths)
    for line in lines:
        name, seconds, shown = line.split(" | ")
        assert float(seconds) < 5, line
        if name.startswith("later"):
            assert shown == "6 frames ('decoded 6 of 11 declared frames',)"
        else:
            assert shown.startswith("refused: "), line
            assert "million pixels" in shown or "no readable image" in shown, line
    # One frame of 9000 x 8000 alone is 69 MiB.
    assert float(memory.split()[1]) < 60, done.stdout


def _huge_films(folder: Path) -> Iterator[Path]:
    """Films of valid JPEG frames of 9000 x 8000: all of them, or from the fourth on; a huge GIF."""
    small, big = _jpeg(128, 96), _jpeg(9000, 8000)
    for name, pictures in (("first", [big] * 8), ("later", [small] * 3 + [big] * 5 + [small] * 3)):
        for suffix in ("avi", "mov", "mkv") if name == "first" else ("avi",):
            path = folder / f"{name}.{suffix}"
            _mux_jpegs(path, pictures)
            yield path
    gif = bytearray(write_film(folder / "huge.gif", "gif", "rgb8", frames=2).path.read_bytes())
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    (folder / "huge.gif").write_bytes(gif)
    yield folder / "huge.gif"


def _huge_images(folder: Path) -> Iterator[Path]:
    """Image folders: 20000 x 20000 black pixels in a small file, and headers that only say so."""
    size = struct.pack(">II", 20000, 20000)
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(2501 * 100)) for _ in range(200)) + packer.flush()
    header = _chunk(b"IHDR", size + bytes([1, 0, 0, 0, 0]))  # one bit a pixel
    png = b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    jpeg = bytearray(_jpeg(128, 96))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 20000, 20000)
    bmp = bytearray(_image("bmp", 16, 16))
    bmp[18:26] = struct.pack("<ii", 20000, 20000)
    for suffix, data in (("png", png), ("jpg", jpeg), ("bmp", bmp)):
        (folder / suffix).mkdir()
        (folder / suffix / f"1.{suffix}").write_bytes(data)
        yield folder / suffix


def _chunk(kind: bytes, data: bytes) -> bytes:
    whole = kind + data
    return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))


def _image(kind: str, width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height)).save(stream, kind)
    return stream.getvalue()


def _jpeg(width: int, height: int) -> bytes:
    return _image("jpeg", width, height)


def _mux_jpegs(path: Path, pictures: list[bytes]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for index, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            packet.is_keyframe = True
            container.mux(packet)
