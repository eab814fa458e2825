"""What each swallow measure is, in words, with the numbers that are part of its definition."""

from __future__ import annotations

from .tracks import APART_S, BOLUS_LEAST_FRAMES, BRIDGED_S

SPREAD_LIMIT_PERCENT = 15.0
REST_FRAMES = 5
STILL_PERCENT = 10.0
HARDLY_NARROWS = 0.8
BOLUS_LEAST_PERCENT = 2.0
BOLUS_LEAST_PX = 25

_OF_ONE = "in the swallow that is measured (see bolus_pharynx_first)."
DEFINITIONS = {
    "c2_c4_length": "Median over frames of L, the distance between the antero-inferior corners "
    "A2 of C2 and A4 of C4. Frames in which the picture's edge cuts either bone where its corner "
    "may be are left out of all that stands on L; frames in which it cuts the hyoid do not place "
    "it. Where the hyoid lies behind the spine in most frames, the side taken for the anterior one "
    "is wrong, and nothing that stands on L is measured.",
    "c2_c4_length_spread": "95th minus 5th percentile of L over frames, as a share of its median. "
    f"Above {SPREAD_LIMIT_PERCENT:g} % nothing is scaled by L.",
    "hyoid_x_peak": "x (anterior) of the centroid of the hyoid mask, from A4, at the frame of the "
    "largest hyoid_xy_peak.",
    "hyoid_y_peak": "y (along A4→A2) of the same point at the same frame.",
    "hyoid_xy_peak": f"Largest distance of the centroid of the hyoid mask from A4 {_OF_ONE}",
    "hyoid_peak_time": "Time of the frame of hyoid_xy_peak.",
    "hyoid_excursion": "Distance between the hyoid at hyoid_xy_peak and at rest, in the spine's "
    f"axes. Rest: median of its first {REST_FRAMES} frames in which the hyoid can be placed.",
    "hyoid_corner_x_peak": "x (anterior) of the antero-inferior corner of the hyoid mask, from A4, "
    "at the frame of the largest hyoid_corner_xy_peak. This is the point that ASPEKT uses; it "
    "follows a mask's outline, and so its errors, more closely than the centroid.",
    "hyoid_corner_y_peak": "y (along A4→A2) of the same point at the same frame.",
    "hyoid_corner_xy_peak": f"Largest distance of that corner from A4 {_OF_ONE}",
    "pharynx_area_max": "Largest area of the pharynx mask (bolus and air inside it included) "
    f"{_OF_ONE}",
    "pharynx_area_min": "Smallest area of the pharynx mask among the frames of that swallow that "
    "show it: the frame of maximal constriction (MPC).",
    "pharynx_area_ratio": "pharynx_area_min ÷ pharynx_area_max. Not the clinical constriction "
    "ratio, which needs a rest or bolus-hold frame chosen by a person.",
    "bolus_pharynx_first": "Time of the first frame of the first passage of the bolus through the "
    "pharynx: overlap of both masks of at least "
    f"{BOLUS_LEAST_PERCENT:g} %(C2-4)² ({BOLUS_LEAST_PX} px where there is no scale), in at least "
    f"{BOLUS_LEAST_FRAMES} frames; gaps up to {BRIDGED_S:g} s are bridged. "
    f"Passages at least {APART_S:g} s apart, with the hyoid rising by {STILL_PERCENT:g} %C2-4, are "
    "taken as swallows, and all but C2-4 is measured on the first whole one: the first, or the "
    "second where barium is in the first from the film's first frame on. It begins and ends "
    "half-way to its neighbours. Swallows between which as much barium stays there are taken as "
    "one.",
    "bolus_pharynx_last": "Time of the last frame of that passage.",
    "bolus_pharynx_duration": "bolus_pharynx_last − bolus_pharynx_first.",
}
