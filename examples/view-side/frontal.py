"""A frontal (antero-posterior) view, drawn: crude, but every shadow is where anatomy puts it.

Millimetres, origin in the middle of C4, x to the patient's left, y towards the feet. What is drawn
is attenuation; the simulator's own machine makes the picture, so that grain, blur, gamma, text and
collimator cannot give a frontal film away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vfss_distill.simulate.curves import Points, ellipse, ribbon, smooth
from vfss_distill.simulate.radiography import Detector
from vfss_distill.simulate.raster import rasterise
from vfss_distill.simulate.study import SimulateOptions, StudySimulator

Image = NDArray[np.float32]
Grey = NDArray[np.uint8]
_SOFT_PER_MM = 0.0185


@dataclass
class _Sheet:
    """An attenuation image being drawn, and how millimetres lie on it."""

    image: Image
    matrix: Points  # 2×2, pixels per mm with roll
    centre: Points
    sway: Points  # slow sideways displacement: (amplitude mm, phase)

    @property
    def px_per_mm(self) -> float:
        return float(np.hypot(*self.matrix[0]))

    def add(self, outline: Points, amount: float, round_mm: float, soft_mm: float = 0.5) -> None:
        points = outline + np.column_stack(
            [self.sway[0] * np.sin(outline[:, 1] / 60 + self.sway[1]), np.zeros(len(outline))]
        )
        shape = self.image.shape
        patch = rasterise([points @ self.matrix.T + self.centre], shape)
        layer = patch.rounded(max(round_mm * self.px_per_mm, 0.6)).full(shape)
        blur = max(soft_mm * self.px_per_mm, 0.3)
        self.image += np.float32(amount) * cv2.GaussianBlur(layer, (0, 0), blur)


def frontal_study(seed: int, options: SimulateOptions) -> list[Grey]:
    """All frames of one patient: the bolus differs from frame to frame.

    Machine, collimator, screen and text are those of a simulated lateral study of this seed.
    """
    ranges = replace(options.population, c4_x=(0.40, 0.60), c4_y=(0.34, 0.62))
    study = StudySimulator(seed, 0, replace(options, ranges=ranges))
    rng = np.random.default_rng((seed, 77))
    height, width = study.screen.picture
    view = study.view
    angle = np.deg2rad(view.roll_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sheet = _Sheet(
        np.zeros((height, width), np.float32),
        turn * view.px_per_mm * rng.normal(1.0, 0.06),
        np.array([view.c4_x * width, view.c4_y * height]),
        np.array([rng.uniform(0, 5), rng.uniform(0, 6.28)]),
    )
    bone = study.machine.bone * rng.uniform(0.6, 1.1)
    _soft_tissue(sheet, rng)
    _spine(sheet, bone, rng)
    _head(sheet, bone, rng)
    _chest(sheet, bone, rng)
    _air(sheet, rng)
    still = sheet.image
    detector = Detector(study.machine, (height, width), rng)
    barium = float(rng.uniform(*ranges.barium_per_mm)) * 14
    frames = []
    for index, time_s in enumerate(study.frame_times_s):
        sheet.image = still.copy()
        _bolus(sheet, barium, rng)
        field = study.collimator.open_at(time_s)
        grey = study.collimator.over(detector.grey(sheet.image, field), field)
        frames.append(study.furniture.over(study.screen.around(grey), index))
    return frames


def _soft_tissue(sheet: _Sheet, rng: np.random.Generator) -> None:
    girth = rng.normal(1.0, 0.12)
    neck = rng.uniform(48, 66) * girth
    right = [
        (0, -215), (52, -195), (74, -150), (76, -105), (66, -62), (neck + 2, -36), (neck, 10),
        (neck + 4, 45), (neck + 30, 68), (150, 92), (190, 130), (200, 260), (0, 260),
    ]  # fmt: skip
    half = np.array(right, float) + rng.normal(0, 2.0, (len(right), 2))
    half[[0, -1], 0] = 0
    skin = np.concatenate([half, (half * (-1, 1))[-2:0:-1]])
    sheet.add(smooth(skin), _SOFT_PER_MM * rng.uniform(95, 150) * girth, 46, 3.0)
    rows, columns = sheet.image.shape
    field = rng.standard_normal((6, 6)).astype(np.float32)
    uneven = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_CUBIC)
    sheet.image *= 1 + 0.03 * uneven


def _spine(sheet: _Sheet, bone: float, rng: np.random.Generator) -> None:
    """C2 to T4: bodies, pillars to either side, spinous processes in the middle."""
    step = rng.uniform(16.5, 19.5)
    for n in range(-2, 8):
        y = n * step
        half = rng.normal(12.5 + 0.9 * max(n, 0), 0.6)
        tall = step * rng.uniform(0.36, 0.42)
        body = [(-half, -tall), (0, -tall * 0.75), (half, -tall), (half * 0.92, tall * 0.9),
                (0, tall), (-half * 0.92, tall * 0.9)]  # fmt: skip
        sheet.add(smooth(np.add(body, (0, y))), 0.42 * bone, 5)
        sheet.add(ellipse(rng.normal(0, 0.8), y + tall * 0.8, 2.6, 4.2), 0.22 * bone, 2)
        for side in (-1, 1):
            pillar = ellipse(side * (half + 6), y, 6.5, step * 0.56)
            sheet.add(pillar, 0.20 * bone, 5)
            if n >= 2:
                process = ellipse(side * (half + 15), y, 12, 3.5, side * -12)
                sheet.add(process, 0.18 * bone, 3)


def _head(sheet: _Sheet, bone: float, rng: np.random.Generator) -> None:
    """Skull above, mandible as an arch, teeth in rows; tilted up or down as patients are."""
    tilt = rng.uniform(-14, 16)
    wide = rng.normal(1.0, 0.06)
    arch = np.array(
        [(-50, -112), (-51, -85), (-47, -62), (-30, -40), (-10, -31), (10, -31), (30, -40),
         (47, -62), (51, -85), (50, -112)], float
    )  # fmt: skip
    arch = arch * (wide, 1) + (rng.normal(0, 2), tilt)
    widths = np.array([14, 13, 13, 14, 16, 16, 14, 13, 13, 14], float)
    centre = smooth(arch, closed=False)
    sheet.add(ribbon(centre, np.interp(np.linspace(0, 9, len(centre)), range(10), widths)),
              0.62 * bone, 5)  # fmt: skip
    skull = ellipse(0, -128 + tilt * 0.6, 70 * wide, 78)
    sheet.add(skull, 0.75 * bone, 26, 1.5)
    base = ellipse(0, -92 + tilt * 0.3, 42 * wide, 16)
    sheet.add(base, 0.45 * bone, 9, 2.0)
    if rng.random() < 0.75:
        for x in np.linspace(-24, 24, 9):
            for y in (-72, -58):
                lift = 0.012 * x * x
                tooth = ellipse(x * wide, y - lift + tilt, 2.5, 6)
                sheet.add(tooth, rng.uniform(0.3, 0.8) * bone, 2, 0.3)
    for side in (-1, 1):
        sinus = ellipse(side * 24 * wide, -100 + tilt, 13, 15)
        sheet.add(sinus, -0.2, 8, 1.5)


def _chest(sheet: _Sheet, bone: float, rng: np.random.Generator) -> None:
    drop = rng.normal(0, 6)
    clavicle = smooth(np.array([(14, 118), (45, 108), (85, 104), (130, 88)]), closed=False)
    rib = smooth(np.array([(20, 92), (52, 92), (72, 112), (66, 140)]), closed=False)
    apex = smooth(np.array([(16, 118), (40, 98), (66, 112), (72, 170), (18, 175)]))
    for side in (-1, 1):
        sheet.add(np.add(apex * (side, 1), (0, drop)), -0.55, 16, 3.0)
        for line, wide in ((clavicle, 10.0), (rib, 8.0)):
            outline = ribbon(np.add(line * (side, 1), (0, drop)), np.full(len(line), wide))
            sheet.add(outline, 0.3 * bone, 4)


def _air(sheet: _Sheet, rng: np.random.Generator) -> None:
    """Pharynx, the narrow glottis, and the trachea as a bright column in the middle."""
    low = rng.normal(14, 6)  # of the larynx
    wide = rng.uniform(13, 20)
    pharynx = [(-wide * 0.7, -48), (wide * 0.7, -48), (wide, -18), (wide * 0.95, low),
               (6, low + 14), (-6, low + 14), (-wide * 0.95, low), (-wide, -18)]  # fmt: skip
    sheet.add(smooth(np.array(pharynx, float)), -rng.uniform(0.12, 0.3), 7, 1.0)
    half = rng.uniform(6.5, 9.5)
    trachea = [(-2, low + 14), (2, low + 14), (half, low + 30), (half, 190), (-half, 190),
               (-half, low + 30)]  # fmt: skip
    sheet.add(np.array(trachea, float), -rng.uniform(0.2, 0.45), half, 0.8)


def _bolus(sheet: _Sheet, barium: float, rng: np.random.Generator) -> None:
    """Somewhere between mouth and oesophagus; rests lie to both sides of the middle."""
    if rng.random() < 0.25:
        return
    where = rng.choice(["mouth", "pharynx", "oesophagus", "rests"])
    uneven = rng.uniform(0.5, 1.0, 4)
    if where == "mouth":
        outline = ellipse(rng.normal(0, 4), -58, rng.uniform(14, 26), rng.uniform(6, 12))
        sheet.add(outline, barium, 7)
    if where == "pharynx":
        for side in (-1, 1):
            line = np.array([(2, -30), (13, -5), (14, 18), (3, 38)], float) * (side, 1)
            line = smooth(line, closed=False)
            sheet.add(ribbon(line, np.full(len(line), rng.uniform(7, 13))), barium * 0.8, 4)
    if where in ("pharynx", "oesophagus"):
        line = np.array([(0, 34), (rng.normal(0, 1), 60), (4, 100), (7, 180)], float)
        line = smooth(line, closed=False)
        sheet.add(ribbon(line, np.full(len(line), rng.uniform(4, 14))), barium, 4)
    if where != "mouth":
        for number, (x, y, rx, ry) in enumerate(((9, -6, 6, 4), (14, 17, 4.5, 8))):
            for side in (-1, 1):
                pool = ellipse(side * x, y, rx, ry * rng.uniform(0.6, 1.2), side * 12)
                sheet.add(pool, barium * 0.7 * uneven[2 * number + (side > 0)], 4)
