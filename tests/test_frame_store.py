"""Frames reach the study the same, byte for byte, whichever way they waited for the verdict."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vfss_distill.intake import frame_store
from vfss_distill.intake.boxes import Box, blank_boxes
from vfss_distill.intake.frame_store import FrameStore
from vfss_distill.intake.source import Frame
from vfss_distill.intake.study import frame_name, write_frame

BOXES = (Box(2, 3, 9, 4, "border"), Box(20, 0, 12, 6, "given"))
FILM = np.random.default_rng(0).integers(0, 256, (40, 24, 32), np.uint8)


def stored(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def expected(folder: Path, frames: int, boxes: tuple[Box, ...], mirror: bool) -> dict[str, bytes]:
    (folder / "frames").mkdir(parents=True)
    for index, frame in enumerate(FILM[:frames]):
        grey = frame.copy()
        blank_boxes(grey, boxes)
        write_frame(folder, index, np.ascontiguousarray(grey[:, ::-1]) if mirror else grey)
    return stored(folder)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("boxes", [(), BOXES])
@pytest.mark.parametrize("foreseen", [False, True])
@pytest.mark.parametrize(
    ("frames", "room"),
    [(1, 0), (24, 0), (25, 1 << 20), (40, 1 << 20), (40, 30 * 24 * 32), (40, 0)],
)
def test_the_same_bytes_however_they_waited(
    frames: int,
    room: int,
    foreseen: bool,
    boxes: tuple[Box, ...],
    mirror: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_store, "WAITING_BYTES", room)
    asked: list[int] = []

    def foresee(first: object) -> bool:
        asked.append(len(first))  # type: ignore[arg-type]
        return foreseen

    folder = tmp_path / "made"
    store = FrameStore(folder, foresee)
    source = [Frame(index, index / 25, frame.copy()) for index, frame in enumerate(FILM[:frames])]
    for frame in source:
        frame.grey.flags.writeable = False  # as a decoder's own memory may be
    assert [frame.index for frame in store.take(source)] == list(range(frames))
    store.finish(boxes, mirror=mirror)
    assert stored(folder) == expected(tmp_path / "plain", frames, boxes, mirror)
    assert asked == ([24] if frames >= 24 else [])


@pytest.mark.parametrize("foreseen", [False, True])
def test_each_frame_is_compressed_once(
    foreseen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def counted(folder: Path, index: int, grey: object) -> None:
        written.append(index)
        write_frame(folder, index, grey)  # type: ignore[arg-type]

    monkeypatch.setattr(frame_store, "write_frame", counted)
    store = FrameStore(tmp_path, lambda _: foreseen)
    for _ in store.take(Frame(index, 0.0, frame) for index, frame in enumerate(FILM)):
        pass
    store.finish(BOXES if foreseen else ())
    assert sorted(written) == list(range(len(FILM)))


def test_large_frames_are_judged_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_store, "HELD_BYTES", 3 * 24 * 32)
    asked: list[int] = []
    store = FrameStore(tmp_path, lambda first: bool(asked.append(len(first))))
    for _ in store.take(Frame(index, 0.0, frame) for index, frame in enumerate(FILM)):
        pass
    store.finish(())
    assert asked == [3]
    last = cv2.imread(str(tmp_path / "frames" / frame_name(39)), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(last, FILM[39])


@pytest.mark.parametrize("boxes", [(), BOXES])
@pytest.mark.parametrize("foreseen", [False, True])
@pytest.mark.parametrize(("frames", "room"), [(20, 0), (40, 1 << 20), (40, 30 * 24 * 32), (40, 0)])
def test_frames_are_seen_in_order_blanked_and_not_mirrored(
    frames: int,
    room: int,
    foreseen: bool,
    boxes: tuple[Box, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_store, "WAITING_BYTES", room)
    store = FrameStore(tmp_path, lambda _: foreseen)
    source = [Frame(index, index / 25, frame.copy()) for index, frame in enumerate(FILM[:frames])]
    assert len(list(store.take(source))) == frames
    seen: list[np.ndarray] = []
    store.finish(boxes, mirror=bool(boxes), see=seen.append)
    assert len(seen) == frames
    for grey, frame in zip(seen, FILM, strict=False):
        blanked = frame.copy()
        blank_boxes(blanked, boxes)
        assert np.array_equal(grey, blanked)
