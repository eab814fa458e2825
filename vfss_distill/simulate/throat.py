"""Shapes of the soft parts at rest, and the outlines of one frame.

All coordinates are millimetres in the patient's frame (see `curves`), for an adult of middle size
with the head straight. The channel is two walls with shared knots, from the lips to the chest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .curves import Points

# knot: lower/front wall x, y · upper/back wall x, y · share of head, of jaw, of hyoid, of larynx
CHANNEL = np.array(
    [
        (-107, -44.0, -107.0, -49.0, 1.0, 1.0, 0.0, 0.0),  # 0 lips
        (-99.0, -43.0, -99.0, -53.0, 1.0, 1.0, 0.0, 0.0),
        (-90.0, -50.0, -91.0, -59.5, 1.0, 0.6, 0.0, 0.0),
        (-78.0, -55.5, -79.0, -61.5, 1.0, 0.4, 0.0, 0.0),  # 3 middle of the tongue
        (-66.0, -57.0, -66.0, -61.0, 1.0, 0.3, 0.0, 0.0),
        (-54.0, -54.0, -52.0, -58.5, 0.9, 0.2, 0.1, 0.0),
        (-44.5, -46.5, -39.5, -51.5, 0.8, 0.1, 0.2, 0.0),  # 6 soft palate
        (-34.5, -36.0, -29.0, -42.0, 0.6, 0.1, 0.3, 0.0),
        (-28.5, -25.0, -14.5, -34.0, 0.3, 0.0, 0.45, 0.1),  # 8 tongue base
        (-25.8, -13.0, -13.6, -20.0, 0.1, 0.0, 0.6, 0.3),
        (-25.0, -3.0, -13.2, -7.0, 0.0, 0.0, 0.6, 0.6),  # 10 mouth of the valleculae
        (-20.6, 7.0, -13.0, 6.0, 0.0, 0.0, 0.4, 1.0),  # 11 top of the arytenoids
        (-17.8, 17.0, -13.0, 17.0, 0.0, 0.0, 0.2, 1.0),
        (-15.7, 27.0, -13.4, 27.0, 0.0, 0.0, 0.0, 0.9),  # 13 pyriform sinuses
        (-14.6, 36.0, -14.4, 36.0, 0.0, 0.0, 0.0, 0.75),  # 14 UES
        (-14.2, 48.0, -14.0, 48.0, 0.0, 0.0, 0.0, 0.4),
        (-12.8, 62.0, -12.6, 62.0, 0.0, 0.0, 0.0, 0.15),
        (-10.0, 80.0, -9.8, 80.0, 0.0, 0.0, 0.0, 0.0),
        (-6.0, 102.0, -5.8, 102.0, 0.0, 0.0, 0.0, 0.0),
        (-1.0, 128.0, -0.8, 128.0, 0.0, 0.0, 0.0, 0.0),
    ]
)
FAUCES = 7.0

# front x, y · back x, y of the airway, inlet to chest, with the share of the larynx's motion
AIRWAY = np.array(
    [
        (-23.0, 1.0, -20.8, 8.5, 1.0),  # 0 inlet
        (-25.5, 10.0, -19.8, 14.0, 1.0),
        (-29.0, 19.0, -20.2, 20.5, 1.0),
        (-32.0, 26.5, -20.8, 27.0, 1.0),  # 3 vocal folds
        (-33.0, 34.0, -19.6, 35.0, 1.0),
        (-32.2, 45.0, -18.0, 46.0, 0.8),
        (-30.8, 58.0, -16.4, 59.0, 0.5),
        (-28.0, 76.0, -13.2, 77.0, 0.25),
        (-24.0, 97.0, -9.0, 98.0, 0.1),
        (-18.0, 124.0, -3.0, 125.0, 0.0),
    ]
)
CRICOID_EDGE = 4.6  # where along the airway the cricoid ends and the trachea begins
HYOID_BODY = np.array(
    [
        (-41.5, 0.2),
        (-42.6, 4.5),
        (-40.6, 8.0),
        (-37.5, 7.4),
        (-34.8, 3.6),
        (-34.2, -0.6),
        (-37.6, -1.8),
    ]
)
HYOID_HORN = np.array(
    [(-37.5, -0.8), (-30, -3.2), (-22, -6.2), (-15.5, -9.2), (-14.2, -7.0), (-21, -3.0), (-29, 0.8),
     (-36, 3.8)]
)  # fmt: skip
VALLECULA = np.array(
    [
        (-28.6, -9.0),
        (-30.6, -3.0),
        (-31.2, 2.0),
        (-29.2, 5.2),
        (-26.6, 4.2),
        (-24.8, -1.0),
        (-24.2, -7),
    ]
)
PYRIFORM = np.array(
    [(-19.6, 10), (-19.4, 17), (-18.2, 25), (-15.8, 30), (-13.8, 27), (-13.2, 18), (-14.4, 10)]
)
MOUTH_FLOOR = np.array([(-36.0, 1.0), (-52, -7), (-72, -10), (-94, -14), (-101, -26)])
# The soft palate's middle line at rest and raised; behind it the nasopharynx's roof and back wall.
VELUM = np.array([(-48.0, -61), (-40, -55), (-34.5, -46), (-32, -36)])
RAISED_VELUM = np.array([(-48.0, -61), (-36, -61), (-25, -58.5), (-18.5, -48)])
NASAL_ROOF = np.array([(-42.0, -63.0), (-31, -66)])
NASAL_BACK = np.array([(-20.0, -64), (-18.0, -58), (-16, -50), (-14.5, -40), (-14.2, -30)])
RAISED_PALATE = np.array([(-52.0, -60), (-38, -57.5), (-24.5, -51.5), (-14.5, -36)])
THYROID = np.array(
    [(-19.5, 1.0), (-21.5, 9.0), (-30, 9.0), (-38, 12.5), (-39.6, 18), (-37, 27), (-34.5, 33),
     (-26, 33.5), (-18.5, 34), (-17.0, 39.5), (-16.0, 33), (-16.8, 20), (-17.6, 8.0)]
)  # fmt: skip
CRICOID = np.array([(-20.4, 29), (-17.2, 28.6), (-16.4, 36), (-17.4, 42), (-20.2, 41)])
CRICOID_FRONT = np.array([(-35.0, 36), (-33.2, 36), (-32.8, 41), (-34.8, 41)])
ARYTENOID = np.array([(-21.5, 14), (-18.6, 13), (-17.4, 21), (-18.4, 27.5), (-22.0, 27)])


@dataclass
class Throat:
    """Outlines in pixels of one frame; several outlines of one structure are united."""

    pharynx: list[Points] = field(default_factory=list)
    airway: list[Points] = field(default_factory=list)
    trachea: list[Points] = field(default_factory=list)  # the airway below the cricoid
    hyoid: list[Points] = field(default_factory=list)
    nasopharynx: list[Points] = field(default_factory=list)
    throat_air: list[Points] = field(default_factory=list)  # both: one shadow
    bolus: list[Points] = field(default_factory=list)
    # Trickles and smears: less barium along the beam.
    thin_bolus: list[Points] = field(default_factory=list)
    # A coat on the mucosa, thinner than a millimetre: seen, but no bolus.
    film: list[Points] = field(default_factory=list)
    bubbles: list[Points] = field(default_factory=list)
    epiglottis: list[Points] = field(default_factory=list)
    tongue: list[Points] = field(default_factory=list)
    soft_palate: list[Points] = field(default_factory=list)
    vallecula: list[Points] = field(default_factory=list)
    pyriform: list[Points] = field(default_factory=list)
    ues: list[Points] = field(default_factory=list)
    posterior_wall: list[Points] = field(default_factory=list)
    mouth_air: list[Points] = field(default_factory=list)
    thyroid: list[Points] = field(default_factory=list)
    cricoid: list[Points] = field(default_factory=list)
    ues_px: float = 0.0  # narrowest gap at the upper oesophageal sphincter
    hyoid_corner: Points = field(default_factory=lambda: np.zeros(2))
    bolus_heads: list[Points | None] = field(default_factory=list)  # foremost point of each bolus


@dataclass(frozen=True)
class Motion:
    """Pixel matrices (2×3) of the frame: of the whole patient, head and jaw on top of it."""

    body: Points
    head: Points
    jaw: Points
