"""How much of what is drawn around the X-ray picture ingest blanks, and how much anatomy with it.

    python examples/benchmarks/furniture.py [--patients 8] [--seed 8000] [--pictures FOLDER]

Simulated films of two populations, 256 and 512 pixels, 24 frames, stored raw, as JPEG and as H.264:
in the windows of viewers, as the populations have them, and beside the picture of a second camera.
Drawn counts what stands out from its bar, four pixels and more from the picture (a single line of
grey between bar and picture shows nobody), but for what is blanked as text anyway. Anatomy is what
the simulator labels, on any frame. The limits were set on other patients (seeds 7000 to 7605).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from burned_in import DATA, Film, Mask, stored
from numpy.typing import NDArray

from vfss_distill.intake.boxes import Box
from vfss_distill.intake.burned_in import find_text
from vfss_distill.intake.film_sample import FrameSample
from vfss_distill.intake.source import open_source
from vfss_distill.intake.surroundings import find_surroundings
from vfss_distill.intake.walk import find_sources
from vfss_distill.simulate import SimulateOptions
from vfss_distill.simulate.population import POPULATIONS, Ranges
from vfss_distill.simulate.study import StudySimulator

SIZES = (256, 512)
CODECS = ("raw", "jpeg", "h264")
CAMERAS = ("beside, on grey", "beside, on black", "in a black corner", "over the picture")


class Tally:
    """Films: how many, with all that should be blanked, with anatomy blanked."""

    def __init__(self) -> None:
        self.films = self.whole = self.touched = self.hit = self.named = self.doubted = 0
        self.pixels = self.covered = self.anatomy = self.lost = 0

    def add(self, wanted: Mask, blank: Mask, suspect: Mask, anatomy: Mask) -> None:
        covered, lost = int((wanted & blank).sum()), int((anatomy & blank).sum())
        self.films += 1
        self.whole += covered >= 0.98 * wanted.sum()
        self.touched += bool(blank.any())
        self.named += bool(suspect.any()) and (wanted & suspect).sum() >= 0.9 * wanted.sum()
        self.doubted += bool(suspect.any())
        self.hit += lost > 0
        self.pixels += int(wanted.sum())
        self.covered += covered
        self.anatomy += int(anatomy.sum())
        self.lost += lost

    def __str__(self) -> str:
        share = self.covered / self.pixels if self.pixels else 0.0
        return (
            f"{self.films:4d} films | all of it blanked in {self.whole:4d}, pixels {share:6.1%}, "
            f"named in {self.named} | something blanked in {self.touched:4d}, something suspect in "
            f"{self.doubted} | anatomy blanked in {self.hit}, "
            f"{self.lost / max(self.anatomy, 1):.4%} of its pixels"
        )


def simulated(ranges: Ranges, size: int, seed: int) -> tuple[Film, Mask, StudySimulator]:
    """A film, its anatomy, and what drew it."""
    options = SimulateOptions(size=size, frames=24, fps=8, ranges=ranges, extras=True)
    simulator = StudySimulator(seed, 0, options)
    frames = list(simulator.frames())
    anatomy = np.zeros(frames[0].grey.shape, bool)
    for frame in frames:
        for mask in frame.masks.values():
            anatomy |= mask
    return np.stack([frame.grey for frame in frames]), anatomy, simulator


def each(patients: int, seed: int, **changes: float) -> Iterator[tuple[str, int, tuple]]:
    for name, ranges in POPULATIONS.items():
        for size in SIZES:
            for number in range(patients):
                film = simulated(replace(ranges, **changes), size, seed + number)
                yield name, size, film


def drawn_around(simulator: StudySimulator, film: Film) -> Mask:
    """Icons, labels and signs of a viewer, clear of the picture."""
    near = np.zeros(film.shape[1:], np.uint8)
    near[simulator.screen.window] = 1
    near = cv2.dilate(near, np.ones((7, 7), np.uint8))
    ground = simulator.screen.around(np.zeros(simulator.screen.picture, np.uint8))
    edges = cv2.morphologyEx(ground, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 24
    return edges & (near == 0)


def searched(film: Film) -> tuple[Mask, Mask, Mask]:
    """What the search for furniture blanks, what it names as suspect, and what is text."""
    text = find_text(list(film)).blank
    found = find_surroundings(list(film), text)
    shape = film.shape[1:]
    return mask_of(found.blank, shape), mask_of(found.suspect, shape), mask_of(text, shape)


def mask_of(boxes: tuple[Box, ...], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box.window] = True
    return mask


def camera(rng: np.random.Generator, frames: int, height: int, width: int) -> Film:
    """A face that moves before a wall, with a camera's noise."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    wall = 60 + 80 * columns / width + 20 * np.sin(rows / 7)
    pictures = []
    for index in range(frames):
        picture = wall.copy()
        middle = (int(width * (0.5 + 0.05 * np.sin(index / 3))), int(height * 0.55))
        cv2.ellipse(picture, middle, (width // 5, height // 3), 0, 0, 360, 190, -1)
        mouth = (middle[0], middle[1] + height // 8)
        cv2.ellipse(picture, mouth, (width // 14, 2 + index % 5), 0, 0, 360, 70, -1)
        pictures.append(picture + rng.normal(0, 3, picture.shape))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def with_camera(
    film: Film, anatomy: Mask, where: str, rng: np.random.Generator
) -> tuple[Film, Mask, Mask]:
    """`film` with a second picture, the anatomy in it, and where that picture is."""
    frames, height, width = film.shape
    share = 0.17 if where == "in a black corner" else float(rng.uniform(0.25, 0.4))
    wide, tall = round(share * width), round(0.75 * share * width)
    if where.startswith("beside"):
        grey = int(rng.integers(60, 200)) if where.endswith("grey") else 0
        ground = np.full((frames, height, width + wide + 24), grey, np.uint8)
        ground[:, :, :width] = film
        y, x = int(rng.integers(8, height - tall - 8)), width + 12
        anatomy = np.pad(anatomy, ((0, 0), (0, wide + 24)))
    else:
        ground = film.copy()
        y = 2 if rng.random() < 0.5 else height - tall - 2
        x = 2 if rng.random() < 0.5 else width - wide - 2
    ground = ground[:, : height - height % 2, : ground.shape[2] - ground.shape[2] % 2]
    anatomy = anatomy[: ground.shape[1], : ground.shape[2]].copy()
    ground[:, y : y + tall, x : x + wide] = camera(rng, frames, tall, wide)
    there = np.zeros(anatomy.shape, bool)
    there[y : y + tall, x : x + wide] = True
    return ground.copy(), anatomy & ~there, there


def picture(film: Film, blank: Mask, suspect: Mask) -> NDArray[np.uint8]:
    """The middle frame, and beside it what is blanked in red and what is suspect in yellow."""
    grey = cv2.cvtColor(film[len(film) // 2], cv2.COLOR_GRAY2BGR)
    red = grey.copy()
    red[suspect] = (40, 190, 250)
    red[blank] = (60, 60, 230)
    return np.hstack([grey, cv2.addWeighted(grey, 0.5, red, 0.5, 0)])


def show(tallies: dict[str, Tally]) -> None:
    for key, tally in tallies.items():
        print(f"  {key:28s} {tally}")


def viewers(patients: int, seed: int, folder: Path | None) -> None:
    tallies: dict[str, Tally] = defaultdict(Tally)
    for name, size, (film, anatomy, simulator) in each(
        patients, seed, viewer_share=1.0, compression_share=0.0
    ):
        wanted = drawn_around(simulator, film)
        for codec in CODECS:
            version = stored(film, codec)
            blank, suspect, text = searched(version)
            for key in ("all", name, str(size), codec):
                tallies[key].add(wanted & ~text, blank, suspect, anatomy)
            if folder:
                path = folder / f"viewer-{name}-{size}-{simulator._seeds[0]}-{codec}.png"
                cv2.imwrite(str(path), picture(version, blank, suspect))
    print("in the windows of viewers")
    show(tallies)


def as_they_are(patients: int, seed: int) -> None:
    tallies: dict[str, Tally] = defaultdict(Tally)
    for name, size, (film, anatomy, _) in each(2 * patients, seed + 1000):
        held = np.repeat(film[:1], len(film), axis=0)
        for codec, version in (*((codec, film) for codec in CODECS), ("held", held)):
            blank, suspect, _ = searched(stored(version, "h264" if codec == "held" else codec))
            for key in ("all", name, str(size), codec):
                tallies[key].add(np.zeros_like(blank), blank, suspect, anatomy)
    print("as the populations have them (held: one frame repeated, as H.264)")
    show(tallies)


def cameras(patients: int, seed: int, folder: Path | None) -> None:
    tallies: dict[str, Tally] = defaultdict(Tally)
    rng = np.random.default_rng(seed)
    for name, size, (film, anatomy, simulator) in each(
        patients, seed + 2000, viewer_share=0.0, boxed_share=0.0, moving_collimator_share=0.0
    ):
        for where in CAMERAS:
            if where == "in a black corner" and simulator.collimator.shape != "round":
                continue
            both, seen, there = with_camera(film, anatomy, where, rng)
            for codec in CODECS:
                version = stored(both, codec)
                blank, suspect, _ = searched(version)
                tallies[where].add(there, blank, suspect, seen)
                tallies[f"{where}, {codec}"].add(there, blank, suspect, seen)
                if folder:
                    path = (
                        folder / f"camera-{where}-{name}-{size}-{simulator._seeds[0]}-{codec}.png"
                    )
                    cv2.imwrite(str(path).replace(" ", "-"), picture(version, blank, suspect))
    print("beside the picture of a second camera")
    show(tallies)


def real() -> None:
    if not DATA.is_dir():
        print("real films: ../shared/data is not here")
        return
    folders = [DATA / name for name in ("xa-coronary-cine", "swallow-cine-mri", "dicom-variety")]
    sources = find_sources(folders)
    touched = 0
    for path in sources:
        sample = FrameSample()
        for frame in open_source(path).frames():
            sample.add(frame.grey)
        touched += bool(find_surroundings(sample.frames, find_text(sample.frames).blank).blank)
    print(f"real films without furniture\n  {len(sources)} films | something blanked in {touched}")


def cost(seed: int) -> None:
    """Seconds for a sample of 48 frames of 640×480, on one thread."""
    cv2.setNumThreads(1)
    ranges = replace(POPULATIONS["train"], viewer_share=1.0)
    options = SimulateOptions(width=640, height=480, size=640, frames=48, ranges=ranges)
    film = [frame.grey for frame in StudySimulator(seed, 0, options).frames()]
    best: dict[str, float] = {}
    for _ in range(5):
        for name, search in (("text", find_text), ("furniture", find_surroundings)):
            start = time.perf_counter()
            search(film)
            best[name] = min(best.get(name, 9.0), time.perf_counter() - start)
    print("cost  " + "  ".join(f"{name} {seconds:.3f} s" for name, seconds in best.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=8, help="of each population and size")
    parser.add_argument("--seed", type=int, default=8000)
    parser.add_argument("--pictures", type=Path, help="folder for pictures of what was blanked")
    asked = parser.parse_args()
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
    viewers(asked.patients, asked.seed, asked.pictures)
    cameras(asked.patients, asked.seed, asked.pictures)
    as_they_are(asked.patients, asked.seed)
    real()
    cost(asked.seed)


if __name__ == "__main__":
    main()
