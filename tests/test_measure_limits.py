"""What `vfss measure` leaves out and refuses, rather than print a number that is not the bone's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Cli
from fake_results import FRAMES, SIZE, STEP_S, FakeWorkspace, Masks, Swallow
from vfss_distill.evaluate.definitions import DEFINITIONS
from vfss_distill.intake.boxes import PICTURE, Box
from vfss_distill.intake.picture import find_picture, without_room

LOW = replace(Swallow(), origin=(92.0, 108.0))  # eight pixels lower: its C4 ends below row 104
LIT = [0, 0, SIZE, 104]
TWELVE = "the picture's edge cuts C2 or C4 in 12 frames: left out"


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    return FakeWorkspace(tmp_path)


def measured(cli: Cli, *words: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Of the only result: name → record, and name → why it is not measured."""
    outcome = cli("measure", *words, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    (result,) = json.loads(outcome.stdout)["results"]
    missing = {item["measure"]: item["reason"] for item in result["not_measured"]}
    return {record["measure"]: record for record in result["measures"]}, missing


def within(masks: Masks, x: int = 0, y: int = 0, right: int = SIZE, lower: int = SIZE) -> Masks:
    """What is seen of them in a picture with these sides."""
    seen = np.zeros((SIZE, SIZE), bool)
    seen[y:lower, x:right] = True
    return {task: mask & seen for task, mask in masks.items()}


def sunk(frames: range = range(12), lower: int = 104) -> dict[int, Masks]:
    """A patient who sits eight pixels lower in some frames; the picture ends at a row."""
    return {
        n: within((LOW if n in frames else Swallow()).masks(n), lower=lower) for n in range(FRAMES)
    }


def test_frames_in_which_the_edge_cuts_a_vertebra_are_left_out(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Half a C4 has a corner of its own, higher up: L would be a sixth short, and areas too big."""
    fake.result("p1-aaaaaa", masks=sunk(), shift=0, lit=LIT)
    found, missing = measured(cli)
    assert not missing
    assert found["c2_c4_length"]["value"] == pytest.approx(44, abs=1.5)
    assert found["c2_c4_length"]["frames"] == "12-29"
    assert found["c2_c4_length_spread"]["value"] < 5
    for name, record in found.items():
        assert (TWELVE in record["flags"]) is not name.startswith("bolus")
    assert "not found" not in str(found["c2_c4_length"]["flags"]), "it was found, and cut"


def test_where_the_edge_leaves_too_few_frames_it_is_named(fake: FakeWorkspace, cli: Cli) -> None:
    """Else a person would look for a fault of the model."""
    fake.result("p1-aaaaaa", masks=sunk(range(27)), shift=0, lit=LIT)
    found, missing = measured(cli)
    assert set(found) == {"bolus_pharynx_first", "bolus_pharynx_last", "bolus_pharynx_duration"}
    assert "overlap threshold in pixels: no scale" in found["bolus_pharynx_first"]["flags"]
    for why in missing.values():
        assert "in 3 frames only; the picture's edge cuts C2 or C4 in 27 frames" in why


def test_a_result_that_knows_no_margins_has_the_frames_own_edge(
    fake: FakeWorkspace, cli: Cli
) -> None:
    low, lower = (replace(Swallow(), origin=(92.0, y)) for y in (150.0, 162.0))
    masks = {n: (lower if n < 12 else low).masks(n) for n in range(FRAMES)}
    fake.result("p1-aaaaaa", masks=masks, shift=0)
    found, _ = measured(cli)
    assert found["c2_c4_length"]["frames"] == "12-29"
    assert TWELVE in found["c2_c4_length"]["flags"]


def test_an_older_result_has_the_margins_of_its_study(fake: FakeWorkspace, cli: Cli) -> None:
    """Their box has room around what is lit: a mask that ends at the picture never reaches it."""
    picture = {"x": 0, "y": 0, "width": SIZE, "height": 107, "reason": PICTURE}
    fake.study("p1-aaaaaa", "p1", picture=picture)
    fake.result("p1-aaaaaa", masks=sunk(), shift=0)
    found, _ = measured(cli)
    assert TWELVE in found["c2_c4_length"]["flags"]


def test_a_posterior_process_that_runs_out_of_the_picture_spoils_nothing(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Most films cut it somewhere; the corners lie in front."""
    whole, behind = Swallow().masks(0), range(92 + 30, SIZE)
    assert whole["c2"][:, behind].any() and whole["c4"][:, behind].any()
    masks = {n: within(Swallow().masks(n), right=behind[0]) for n in range(FRAMES)}
    fake.result("p1-aaaaaa", masks=masks, shift=0, lit=[0, 0, behind[0], SIZE])
    found, missing = measured(cli)
    assert not missing
    assert found["c2_c4_length"]["value"] == pytest.approx(44, abs=1.5)
    assert not any("edge" in str(record["flags"]) for record in found.values())


def test_neither_does_a_c2_that_runs_out_above(fake: FakeWorkspace, cli: Cli) -> None:
    top = int(np.flatnonzero(Swallow().masks(0)["c2"].any(axis=1))[0]) + 6
    masks = {n: within(Swallow().masks(n), y=top) for n in range(FRAMES)}
    fake.result("p1-aaaaaa", masks=masks, shift=0, lit=[0, top, SIZE, SIZE - top])
    found, _ = measured(cli)
    assert found["c2_c4_length"]["value"] == pytest.approx(44, abs=1.5)
    assert found["c2_c4_length"]["flags"] == []


@pytest.mark.parametrize("facing", ["left", "right"])
def test_a_hyoid_that_the_edge_cuts_is_not_placed(
    fake: FakeWorkspace, cli: Cli, facing: str
) -> None:
    """Half out of the picture its middle lies too far back, and that at the very peak."""
    x, y = Swallow().hyoid(15)
    left = round(Swallow().point(x + 10, y)[0])  # half of its front half is cut
    masks = {n: within(Swallow().masks(n), x=left) for n in range(FRAMES)}
    lit = [left, 0, SIZE - left, SIZE]
    if facing == "right":
        masks = {n: {task: m[:, ::-1] for task, m in some.items()} for n, some in masks.items()}
        lit[0] = 0
    fake.result("p1-aaaaaa", masks=masks, shift=0, lit=lit, facing=facing)
    found, missing = measured(cli)
    assert not missing
    for name in (name for name in found if name.startswith("hyoid")):
        flags = str(found[name]["flags"])
        assert "the picture's edge cuts the hyoid in" in flags
        assert "the true extreme may lie there" in flags
    assert found["hyoid_xy_peak"]["value"] < np.hypot(x, y), "what is left is no peak"
    assert found["c2_c4_length"]["flags"] == found["pharynx_area_max"]["flags"] == []


def test_the_room_around_a_studys_picture_is_taken_off_again() -> None:
    frame = np.zeros((300, 400), np.uint8)
    frame[40:260, 0:310] = 90
    box = find_picture([frame])
    assert box == Box(0, 34, 316, 232, PICTURE)
    assert without_room(box, 300, 400) == (0, 40, 310, 220)


def test_of_a_film_that_faces_the_other_way_nothing_is_scaled(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Its corners are the postero-inferior ones: L would pass for a length, and areas for areas."""
    masks = {
        n: {task: mask[:, ::-1] for task, mask in Swallow().masks(n).items()} for n in range(FRAMES)
    }
    fake.result("p1-aaaaaa", masks=masks, shift=0)
    found, missing = measured(cli)
    assert set(missing.values()) == {"the hyoid lies behind the spine: is the film mirrored?"}
    assert set(missing) == {name for name in DEFINITIONS if not name.startswith("bolus")}
    for record in found.values():
        assert "overlap threshold in pixels: no scale" in record["flags"]
    assert found["bolus_pharynx_first"]["unit"] == "ms", "when barium is there, needs no side"


class Larger(Swallow):
    """A second swallow that would win: the hyoid goes farther, the pharynx opens and shuts more."""

    def hyoid(self, frame: int) -> tuple[float, float]:
        x, y = super().hyoid(frame)
        return x + (x - 75) * 0.5, y

    def pharynx_width(self, frame: int) -> float:
        return 32 - 28 * float(np.exp(-(((frame - 18) / 3) ** 2)))


def filmed(
    fake: FakeWorkspace, study: str, masks: dict[int, Masks], step_s: float = STEP_S
) -> None:
    times = [n * step_s for n in range(len(masks))]
    fake.result(study, masks=masks, shift=0, n=len(masks), frames=len(masks), frame_times_s=times)


def test_of_several_swallows_the_first_is_measured_throughout(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Else the second one's extremes stand in a row with the first one's times."""
    first = {n: Swallow().masks(n) for n in range(FRAMES)}
    second = {FRAMES + n: Larger().masks(n) for n in range(FRAMES)}
    filmed(fake, "p1-aaaaaa", first)
    filmed(fake, "p2-bbbbbb", first | second)
    filmed(fake, "p3-cccccc", first | second | {n + FRAMES: some for n, some in second.items()})
    (one, _), (two, _), (three, _) = (
        measured(cli, study) for study in ("p1-aaaaaa", "p2-bbbbbb", "p3-cccccc")
    )
    # Barium is in the pharynx in frames 8 to 19, and from frame 38 on.
    said = "2 swallows, told by bolus and hyoid: the first is measured, frames 0-28"
    for name in one:
        spine = name.startswith("c2_c4")
        assert (said in two[name]["flags"]) is not spine
        if spine:
            assert two[name]["frames"] == "0-59", "of a length, every frame tells"
        else:
            assert (two[name]["value"], two[name]["frames"]) == (
                pytest.approx(one[name]["value"], rel=0.001),
                one[name]["frames"],
            )
    assert said.replace("2", "3", 1) in three["pharynx_area_max"]["flags"]


def test_barium_that_comes_back_at_once_is_residue_of_the_same_swallow(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Residue flows together behind the tail, while hyoid and walls are still on the way."""
    masks = {n: Swallow().masks(n) for n in range(FRAMES)}
    for n in range(24, FRAMES):
        masks[n] = {**masks[n], "bolus": Swallow().masks(14)["bolus"]}
    filmed(fake, "p1-aaaaaa", masks)
    found, _ = measured(cli)
    assert "2 passages" in str(found["bolus_pharynx_last"]["flags"])
    assert not any("swallows" in str(record["flags"]) for record in found.values())


def test_swallows_between_which_barium_stays_are_perhaps_several(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Nothing tells them apart, but the hyoid rises twice: the second one's extremes may be told
    with the first one's times."""
    stays = Swallow().masks(14)["bolus"]
    first = {n: Swallow().masks(n) for n in range(FRAMES)}
    both = first | {FRAMES + n: Larger().masks(n) for n in range(FRAMES)}
    for n in range(16, 44):
        both[n] = {**both[n], "bolus": both[n]["bolus"] | stays}
    filmed(fake, "p1-aaaaaa", first)
    filmed(fake, "p2-bbbbbb", both)
    said = "the hyoid rises 2 times in these frames: perhaps several swallows in one"
    (one, _), (two, _) = (measured(cli, study) for study in ("p1-aaaaaa", "p2-bbbbbb"))
    for name in two:
        assert (said in two[name]["flags"]) is not name.startswith("c2_c4"), name
    assert "rises" not in str(one)


def test_a_first_swallow_that_cannot_be_measured_says_which_frames_it_has(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """The second is no stand-in for it."""
    first = {n: Swallow().masks(n) for n in range(FRAMES)}
    second = {FRAMES + n: Larger().masks(n) for n in range(FRAMES)}
    gone = np.zeros((SIZE, SIZE), bool)
    filmed(fake, "p1-aaaaaa", {n: {**some, "hyoid": gone} for n, some in first.items()} | second)
    found, missing = measured(cli)
    why = missing["hyoid_xy_peak"]
    assert why.startswith("the hyoid can be placed in 0 frames only; 2 swallows")
    assert why.endswith("frames 0-28")
    assert "pharynx_area_min" in found


def test_the_first_whole_swallow_is_measured_where_the_film_breaks_into_one(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Or where an earlier one left barium: the hyoid was highest before the film began."""
    late = {n: Larger().masks(n + 14) for n in range(16)}
    whole = {n: Swallow().masks(n) for n in range(FRAMES)}
    after = {n: Larger().masks(n) for n in range(FRAMES)}
    filmed(fake, "p1-aaaaaa", whole)
    filmed(fake, "p2-bbbbbb", late | {16 + n: some for n, some in whole.items()})
    filmed(
        fake,
        "p3-cccccc",
        late
        | {16 + n: some for n, some in whole.items()}
        | {16 + FRAMES + n: some for n, some in after.items()},
    )
    alone, _ = measured(cli, "p1-aaaaaa")
    # Barium is in the pharynx up to frame 5, in 24 to 35, and from 54 on.
    for study, frames in (("p2-bbbbbb", "2 swallows"), ("p3-cccccc", "3 swallows")):
        found, _ = measured(cli, study)
        (said,) = (flag for flag in found["pharynx_area_min"]["flags"] if "swallows" in flag)
        assert said.startswith(frames) and "the second is measured, frames 1" in said
        assert said.endswith("for the first had begun before the film")
        for name in ("hyoid_xy_peak", "pharynx_area_min", "bolus_pharynx_duration"):
            assert found[name]["value"] == pytest.approx(alone[name]["value"], rel=0.01)
            assert said in found[name]["flags"]
        first = int(alone["bolus_pharynx_first"]["frames"])
        assert found["bolus_pharynx_first"]["frames"] == str(first + 16)


@pytest.mark.parametrize("spilt_from", [0, 3])
def test_barium_that_spills_long_before_the_swallow_is_none_of_its_own(
    fake: FakeWorkspace, cli: Cli, spilt_from: int
) -> None:
    """Nor what comes and goes long after it: the hyoid rests meanwhile."""
    barium = Swallow().masks(14)["bolus"]
    still = {n: Swallow().masks(0) for n in range(20)}
    for n in range(spilt_from, 9):
        still[n] = {**still[n], "bolus": barium}
    masks = still | {20 + n: Swallow().masks(n) for n in range(FRAMES)}
    for n in range(10):
        late = Swallow().masks(FRAMES - 1)
        masks[20 + FRAMES + n] = {**late, "bolus": barium} if 2 < n < 6 else late
    filmed(fake, "p1-aaaaaa", masks)
    found, _ = measured(cli)
    assert found["hyoid_xy_peak"]["frames"] == "35"
    assert found["pharynx_area_min"]["frames"] == "38"
    assert found["bolus_pharynx_first"]["frames"] == str(spilt_from)
    assert "3 passages, as of one swallow" in str(found["bolus_pharynx_last"]["flags"])
    assert not any("swallows" in str(record["flags"]) for record in found.values())


def test_residue_that_comes_while_the_hyoid_sinks_is_no_swallow(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """Else it passes for the first whole one, where barium lies in the pharynx from the start."""

    class Slow(Swallow):
        def hyoid(self, frame: int) -> tuple[float, float]:
            lift = float(np.exp(-(((frame - 15) / (4 if frame < 15 else 12)) ** 2)))
            return 75 + 25 * lift, -10 + 30 * lift

    barium = Swallow().masks(14)["bolus"]
    gone = np.zeros_like(barium)
    masks = {n: {**Slow().masks(n), "bolus": gone if 19 <= n < 28 else barium} for n in range(45)}
    filmed(fake, "p1-aaaaaa", masks)
    found, _ = measured(cli)
    assert found["hyoid_xy_peak"]["frames"] == "15"
    assert found["hyoid_xy_peak"]["flags"] == ["hyoid: mask centroid"]


def test_barium_spilt_before_the_film_began_is_no_swallow_before_it(
    fake: FakeWorkspace, cli: Cli
) -> None:
    """The hyoid rests meanwhile: the swallow that it is of is whole."""
    still = {n: Swallow().masks(0) for n in range(20)}
    for n in range(6):
        still[n] = {**still[n], "bolus": Swallow().masks(14)["bolus"]}
    whole = {20 + n: Swallow().masks(n) for n in range(FRAMES)}
    after = {20 + FRAMES + n: Larger().masks(n) for n in range(FRAMES)}
    filmed(fake, "p1-aaaaaa", still | whole | after)
    found, _ = measured(cli)
    assert found["hyoid_xy_peak"]["frames"] == "35"
    (said,) = (flag for flag in found["hyoid_xy_peak"]["flags"] if "swallows" in flag)
    assert said == "2 swallows, told by bolus and hyoid: the first is measured, frames 0-49"


def test_where_swallows_cannot_be_told_apart_it_is_said(fake: FakeWorkspace, cli: Cli) -> None:
    """Without a bolus all are measured as one; without a hyoid each passage counts as one."""
    two = {n: Swallow().masks(n) for n in range(FRAMES)}
    two |= {FRAMES + n: some for n, some in two.items()}
    gone = np.zeros((SIZE, SIZE), bool)
    filmed(fake, "p1-aaaaaa", {n: {**some, "bolus": gone} for n, some in two.items()})
    found, _ = measured(cli)
    said = "no bolus passage: swallows are not told apart, all frames taken"
    for name, record in found.items():
        assert (said in record["flags"]) is not name.startswith("c2_c4")
    for task in ("hyoid", "c4"):
        filmed(fake, "p1-aaaaaa", {n: {**some, task: gone} for n, some in two.items()})
        found, _ = measured(cli, "--force")
        said = "2 swallows, told by the bolus alone where the hyoid cannot be followed: the first"
        assert said in str(found["bolus_pharynx_first"]["flags"])


@pytest.mark.parametrize(
    ("task", "said"),
    [("hyoid", "hyoid not found in 9 frames"), ("c4", "no usable C2-4 in 9 frames")],
)
def test_what_is_lost_at_its_extreme_is_no_calm_film(
    fake: FakeWorkspace, cli: Cli, task: str, said: str
) -> None:
    """A student fails where things move: the rest then looks as if there were no swallow."""
    gone = np.zeros((SIZE, SIZE), bool)
    masks = {n: Swallow().masks(n) for n in range(FRAMES)}
    for n in range(11, 20):
        masks[n] = {**masks[n], task: gone}
    fake.result("p1-aaaaaa", masks=masks, shift=0)
    found, _ = measured(cli)
    flags = found["hyoid_xy_peak"]["flags"]
    assert said in flags and "moves less than 10 %C2-4 where it is measured" in flags
    assert "beside frames that give no value: the true extreme may lie there" in flags
    assert (said in found["pharynx_area_min"]["flags"]) is (task == "c4")
    assert "perhaps no swallow" not in str(found)


def test_a_bolus_seen_in_single_frames_is_not_called_unseen(fake: FakeWorkspace, cli: Cli) -> None:
    gone = np.zeros((SIZE, SIZE), bool)
    masks = {n: Swallow().masks(n) | {"bolus": gone} for n in range(FRAMES)}
    masks[14] = Swallow().masks(14)
    fake.result("p1-aaaaaa", masks=masks, shift=0)
    _, missing = measured(cli)
    why = "bolus is seen in the pharynx in 1 single frame only"
    assert missing["bolus_pharynx_first"] == why


def test_a_view_that_nobody_could_tell_is_flagged(fake: FakeWorkspace, cli: Cli) -> None:
    """Of a study, and of a film that was never ingested; a table's word ends it."""
    said = "view and side could not be told: taken as lateral, facing left"
    fake.result("p1-aaaaaa", shift=0, warnings=[f"{said}; `vfss ingest --views` can say otherwise"])
    for by in ("", "assumed", "table"):
        if by:
            fake.study("p1-aaaaaa", "p1", view_by=by)
        found, _ = measured(cli, "--force")
        for record in found.values():
            assert (said in record["flags"]) is (by != "table")
