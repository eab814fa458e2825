"""How much burned-in text ingest finds, and how much anatomy it takes for text.

    python examples/benchmarks/burned_in.py [--patients 12] [--seed 8000] [--ocr]

Names are planted into simulated films at 12 places, in several fonts, sizes, strokes and greys,
with and without a black box behind them; the films are then stored raw, as JPEG, and as H.264. A
string counts when at least half of it stands out by 32 grey levels: nobody can read white on
white. Anatomy is what the simulator labels. Figures of docs/privacy.md are made by this script;
its patients are others than those the finder's limits were set on (seeds 7000 to 7007).
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_THREAD_LIMIT", "1")

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vfss_distill.intake.burned_in import BurnedIn, find_text
from vfss_distill.intake.film_sample import FrameSample
from vfss_distill.intake.frame_store import FrameStore
from vfss_distill.intake.source import Frame, open_source
from vfss_distill.intake.walk import find_sources
from vfss_distill.simulate import SimulateOptions
from vfss_distill.simulate.population import POPULATIONS, Ranges
from vfss_distill.simulate.study import SimulatedFrame, StudySimulator

Film = NDArray[np.uint8]
Mask = NDArray[np.bool_]

PLACES = [(x, y) for y in (0.04, 0.35, 0.65, 0.96) for x in (0.02, 0.5, 0.98)]
NAMES = ("MUELLER^ANNA", "Jane Doe", "12.03.1951", "ID 4711-0815", "SMITH, JOHN", "F 1948-02-29")
FONTS = (
    *(cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX),
    *(cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL),
)
HEIGHTS = (9, 12, 16, 22, 30)  # of capitals, in pixels of a picture 512 wide
GREYS = (255, 255, 220, 180)
SIZES = (512, 384, 640, 768)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


class Tally:
    """Strings and their pixels: planted, covered whole, flagged for a person."""

    def __init__(self) -> None:
        self.strings = self.whole = self.flagged = self.pixels = self.covered = 0

    def add(self, text: Mask, blank: Mask, suspect: Mask) -> None:
        covered = int((text & blank).sum())
        whole = covered >= 0.99 * text.sum()
        self.strings += 1
        self.whole += whole
        self.flagged += not whole and (text & suspect).sum() > 0.5 * text.sum()
        self.pixels += int(text.sum())
        self.covered += covered

    def __str__(self) -> str:
        return (
            f"{self.strings:5d} strings | whole {self.whole / max(self.strings, 1):6.1%} | "
            f"pixels {self.covered / max(self.pixels, 1):6.1%} | "
            f"only flagged {self.flagged / max(self.strings, 1):5.1%}"
        )


def films(ranges: Ranges, patients: int, seed: int) -> Iterator[tuple[Film, Mask, StudySimulator]]:
    for number in range(patients):
        options = SimulateOptions(
            size=SIZES[number % len(SIZES)], frames=24, fps=8, ranges=ranges, extras=True
        )
        simulator = StudySimulator(seed + number, 0, options)
        frames = list(simulator.frames())
        anatomy = np.stack([_anatomy(frame) for frame in frames])
        yield np.stack([f.grey for f in frames]), anatomy, simulator


def _anatomy(frame: SimulatedFrame) -> Mask:
    """All that is labelled but devices, and shoulders, of which most lie outside the picture."""
    others = ("shoulders", "metal", "tube")
    return np.any([mask for name, mask in frame.masks.items() if name not in others], axis=0)


def stored(film: Film, codec: str) -> Film:
    """`film` after a codec."""
    if codec == "jpeg":
        quality = [cv2.IMWRITE_JPEG_QUALITY, 50]
        packed = [cv2.imencode(".jpg", frame, quality)[1] for frame in film]
        return np.stack([cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in packed])
    if codec == "raw":
        return film
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = film.shape[2], film.shape[1], "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": "28", "preset": "veryfast"}
        for frame in film:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])


def plant(film: Film, rng: np.random.Generator, share: float) -> tuple[Film, list]:
    """`film` with three strings on the first `share` of its frames; (mask, facts, words) each."""
    film, (height, width) = film.copy(), film.shape[1:]
    before, shown = film.mean(axis=0), round(share * len(film))
    planted = []
    for place in rng.choice(len(PLACES), 3, replace=False):
        words, font = str(rng.choice(NAMES)), int(rng.choice(FONTS))
        tall, grey = int(rng.choice(HEIGHTS)), int(rng.choice(GREYS))
        strong = int(rng.choice((1, 2, 3))) if tall >= 16 else 1
        scale = tall * width / 512 / cv2.getTextSize("H", font, 1, 1)[0][1]
        size, below = cv2.getTextSize(words, font, scale, strong)
        if size[0] > 0.55 * width:
            scale *= 0.55 * width / size[0]
            size, below = cv2.getTextSize(words, font, scale, strong)
        x = int(np.clip(PLACES[place][0] * (width - size[0]), 3, width - size[0] - 3))
        y = int(np.clip(PLACES[place][1] * height + size[1] / 2, size[1] + 3, height - below - 3))
        upper, lower = max(0, y - size[1] - 4), y + below + 4
        if any(mask[upper:lower, max(0, x - 15) : x + size[0] + 15].any() for mask, *_ in planted):
            continue
        smooth = cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8
        boxed = rng.random() < 0.3
        mask = np.zeros((height, width), np.uint8)
        cv2.putText(mask, words, (x, y), font, scale, 255, strong, smooth)
        core = mask > 100
        seen = core if boxed else core & (np.abs(grey - before) >= 32)
        if core.sum() < 30 or seen.sum() < 0.5 * core.sum():
            continue
        for frame in film[:shown]:
            if boxed:
                cv2.rectangle(frame, (x - 4, upper), (x + size[0] + 4, lower), 0, -1)
            cv2.putText(frame, words, (x, y), font, scale, grey, strong, smooth)
        where = "inside" if 3 <= place <= 8 and place % 3 == 1 else "border"
        planted.append((seen, (where, f"{tall} px", "boxed" if boxed else "not boxed"), words))
    return film, planted


def looked(film: Film) -> tuple[BurnedIn, Mask, Mask]:
    """What the finder says of a film, and that as masks."""
    sample = FrameSample()
    for frame in film:
        sample.add(frame)
    found = find_text(sample.frames)
    blank, suspect = np.zeros(film.shape[1:], bool), np.zeros(film.shape[1:], bool)
    for boxes, mask in ((found.blank, blank), (found.suspect, suspect)):
        for box in boxes:
            mask[box.window] = True
    return found, blank, suspect


def read_aloud(film: Film, blank: Mask, words: list[str]) -> int:
    """How many of `words` tesseract finds in the middle frame outside `blank`; four letters do."""
    frame = np.where(blank, 0, film[len(film) // 2]).astype(np.uint8)
    frame = cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.png"
        path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
        command = ["tesseract", str(path), "-", "--psm", "11"]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    plain = [re.sub(r"[^a-z0-9]", "", word.lower()) for word in words]
    return sum(any(w[i : i + 4] in letters for i in range(len(w) - 3)) for w in plain)


def recall(patients: int, seed: int, ocr: bool) -> None:
    rng = np.random.default_rng(seed)
    tallies: dict[str, Tally] = defaultdict(Tally)
    strings = read_before = read_after = 0
    for name, ranges in POPULATIONS.items():
        bare = replace(ranges, text_share=0.0, compression_share=0.0)
        for film, _, _ in films(bare, patients, seed):
            for codec in ("raw", "jpeg", "h264"):
                for share, label in ((1.0, ""), (1.0, ""), (0.3, "shown on 30 % of frames")):
                    text, planted = plant(film, rng, share)
                    text = stored(text, codec)
                    _, blank, suspect = looked(text)
                    for mask, facts, _ in planted:
                        for key in (label,) if label else ("all", name, codec, *facts):
                            tallies[key].add(mask, blank, suspect)
                if ocr and planted:
                    text, planted = plant(film, rng, 1.0)
                    text, words = stored(text, codec), [words for *_, words in planted]
                    _, blank, _ = looked(text)
                    strings += len(words)
                    read_before += read_aloud(text, np.zeros_like(blank), words)
                    read_after += read_aloud(text, blank, words)
    print("planted text")
    for key, tally in tallies.items():
        print(f"  {key:24s} {tally}")
    if ocr:
        print(f"  tesseract reads {read_before} of {strings} before and {read_after} after")


def own_text(patients: int, seed: int) -> None:
    """The text that the simulator itself draws, counters among it."""
    tally, counters = Tally(), Tally()
    for ranges in POPULATIONS.values():
        for film, _, simulator in films(replace(ranges, text_share=1.0), patients, seed + 500):
            _, blank, suspect = looked(film)
            for text in simulator.furniture.texts:
                mask = np.zeros(film.shape[1:], np.uint8)
                for index in range(len(film)) if text.counting else (0,):
                    words = text.said(index)
                    font = cv2.FONT_HERSHEY_SIMPLEX
                    cv2.putText(mask, words, (text.x, text.y), font, text.scale, 255, 1)
                behind = film.mean(axis=0)[cv2.dilate(mask, np.ones((7, 7))) > 0].min()
                if (mask > 100).sum() >= 15 and text.grey - behind >= 32:
                    (counters if text.counting else tally).add(mask > 100, blank, suspect)
    print(f"the simulator's own text\n  {'words':24s} {tally}\n  {'counters':24s} {counters}")


def anatomy_lost(patients: int, seed: int) -> None:
    print("films without text")
    for name, ranges in POPULATIONS.items():
        bare = replace(
            ranges, text_share=0.0, filling_share=0.8, plate_share=0.3, earring_share=0.4
        )
        count, hit, lost, pixels, flagged = 0, 0, 0, 0, 0
        for film, anatomy, _ in films(bare, 2 * patients, seed + 1000):
            held = np.repeat(film[:1], len(film), axis=0)  # a last-image hold: even grain is still
            versions = [(stored(film, codec), anatomy) for codec in ("raw", "jpeg", "h264")]
            held_anatomy = np.repeat(anatomy[:1], len(film), axis=0)
            for version, truth in (*versions, (stored(held, "h264"), held_anatomy)):
                found, blank, _ = looked(version)
                taken = int((truth & blank).sum())
                count, hit, flagged = count + 1, hit + (taken > 0), flagged + bool(found.suspect)
                lost, pixels = lost + taken, pixels + int(truth.sum())
        print(
            f"  {name:24s} {count:5d} films | with anatomy blanked {hit} | anatomy pixels blanked "
            f"{lost / pixels:.6%} | films with something flagged {flagged}"
        )


def real() -> None:
    if not DATA.is_dir():
        print("real films: ../shared/data is not here")
        return
    folders = [DATA / name for name in ("xa-coronary-cine", "swallow-cine-mri", "dicom-variety")]
    blanked = flagged = 0
    sources = find_sources(folders)
    for path in sources:
        found, *_ = looked(np.stack([frame.grey for frame in open_source(path).frames()]))
        blanked, flagged = blanked + len(found.blank), flagged + len(found.suspect)
    print(
        f"real films without text\n  {len(sources)} films | blanked {blanked} | flagged {flagged}"
    )


def cost(seed: int, frames: int) -> None:
    """Seconds of what ingest does to a film of 640x480, on one thread."""
    cv2.setNumThreads(1)
    options = SimulateOptions(width=640, height=480, size=640, frames=frames, extras=False)
    grey = [frame.grey for frame in StudySimulator(seed, 0, options).frames()]
    film = stored(np.stack(grey), "h264")
    with tempfile.TemporaryDirectory() as folder:
        path, sample = Path(folder) / "film.mp4", FrameSample()
        path.write_bytes(encoded(film))
        start = time.perf_counter()
        store = FrameStore(Path(folder), lambda _: False)
        kept: list[Frame] = list(store.take(open_source(path).frames()))
        store.finish(())
        written = time.perf_counter()
        for frame in kept:
            sample.add(frame.grey)
        find_text(sample.frames)
        searched = time.perf_counter()
    print(
        f"cost, {frames} frames of 640x480\n  decode and write {written - start:.2f} s | search "
        f"{searched - written:.3f} s ({(searched - written) / (written - start):.1%})"
    )


def encoded(film: Film) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = film.shape[2], film.shape[1], "yuv420p"
        for frame in film:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=12, help="of each population")
    parser.add_argument("--seed", type=int, default=8000)
    parser.add_argument("--ocr", action="store_true", help="let tesseract look as well")
    asked = parser.parse_args()
    if asked.ocr and shutil.which("tesseract") is None:
        parser.error("tesseract is not installed")
    recall(asked.patients, asked.seed, asked.ocr)
    own_text(asked.patients, asked.seed)
    anatomy_lost(asked.patients, asked.seed)
    real()
    for frames in (90, 300):
        cost(asked.seed, frames)


if __name__ == "__main__":
    main()
