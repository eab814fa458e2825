"""`vfss measure`: numbers from masks whose geometry is known."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Cli
from fake_results import FRAMES, SIZE, STEP_S, FakeWorkspace, Swallow, digest
from vfss_distill.evaluate.definitions import DEFINITIONS
from vfss_distill.evaluate.landmarks import find_spine
from vfss_distill.evaluate.measures import spans
from vfss_distill.evaluate.tracks import passages, without_spikes
from vfss_distill.simulate import SimulateOptions, simulate_study
from vfss_distill.tasks import VFSS12


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkspace:
    return FakeWorkspace(tmp_path)


def measured(cli: Cli, *words: str) -> dict[str, dict[str, object]]:
    """name → record of the only result."""
    outcome = cli("measure", *words, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    (result,) = json.loads(outcome.stdout)["results"]
    return {record["measure"]: record for record in result["measures"]}


@pytest.mark.parametrize("tilt", [-0.3, 0.0, 0.35])
def test_measures_agree_with_the_geometry_they_were_drawn_from(
    fake: FakeWorkspace, cli: Cli, tilt: float
) -> None:
    swallow = Swallow(tilt=tilt, length=44, origin=(92 - 40 * tilt, 105))
    fake.study("p1-aaaaaa", "p1", swallow=swallow)
    fake.result("p1-aaaaaa", swallow=swallow, shift=0)
    found = measured(cli)
    x, y = swallow.hyoid(15)
    # Two pixels of 44 are 4.5 %C2-4.
    assert found["c2_c4_length"]["value"] == pytest.approx(44, abs=2)
    assert found["hyoid_x_peak"]["value"] == pytest.approx(x, abs=5)
    assert found["hyoid_y_peak"]["value"] == pytest.approx(y, abs=5)
    assert found["hyoid_xy_peak"]["value"] == pytest.approx(np.hypot(x, y), abs=5)
    rest = np.array(swallow.hyoid(0))
    excursion = float(np.hypot(*(np.array([x, y]) - rest)))
    assert found["hyoid_excursion"]["value"] == pytest.approx(excursion, abs=4)
    assert abs(int(str(found["hyoid_xy_peak"]["frames"])) - 15) <= 1
    assert found["hyoid_peak_time"]["value"] == pytest.approx(15 * STEP_S * 1000, abs=70)
    assert abs(int(str(found["pharynx_area_min"]["frames"])) - 18) <= 1
    ratio = swallow.pharynx_width(18) / swallow.pharynx_width(0)
    assert found["pharynx_area_ratio"]["value"] == pytest.approx(ratio, abs=0.05)
    area = np.pi * swallow.pharynx_width(0) * 95 / 100
    assert found["pharynx_area_max"]["value"] == pytest.approx(area, rel=0.12)
    assert found["bolus_pharynx_first"]["frames"] == "8"
    assert found["bolus_pharynx_duration"]["unit"] == "ms"


def test_measures_csv_lies_in_the_result_and_reads_back(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1")
    folder = fake.result("p1-aaaaaa")
    outcome = cli("measure")
    assert outcome.exit_code == 0
    assert "hyoid_xy_peak" in outcome.stdout
    with (folder / "measures.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0]) == ["measure", "value", "unit", "frames", "flags"]
    assert {line["measure"] for line in lines} == set(DEFINITIONS)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_terminal_and_page_show_the_same_digits(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1")
    fake.result("p1-aaaaaa")
    lines = [line.split() for line in cli("measure").stdout.splitlines()]
    said = {words[0]: words[1] for words in lines if words and words[0] in DEFINITIONS}
    assert cli("report").exit_code == 0
    page = (fake.root / "reports" / "report-001" / "index.html").read_text(encoding="utf-8")
    row = r"<tr><td>(\w+)</td><td class=\"n\">([^<]+)</td>"
    assert said == {name: value for name, value in re.findall(row, page) if name in said}
    assert set(said) == set(DEFINITIONS)


def test_a_file_with_other_values_is_kept_without_force(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1")
    target = fake.result("p1-aaaaaa") / "measures.csv"
    assert cli("measure").exit_code == 0
    written = target.read_text()
    assert "differs" not in cli("measure").stderr, "the same values again: nothing to say"
    target.write_text("checked by hand\n")
    assert "--force" in cli("measure").stderr
    assert target.read_text() == "checked by hand\n"
    cli("measure", "--force")
    assert target.read_text() == written


def test_a_file_saved_again_by_a_spreadsheet_is_kept_too(fake: FakeWorkspace, cli: Cli) -> None:
    target = fake.result("p1-aaaaaa") / "measures.csv"
    cli("measure")
    saved = target.read_text(encoding="utf-8").encode("cp1252")  # "²" is no UTF-8 there
    target.write_bytes(saved)
    outcome = cli("measure")
    assert outcome.exit_code == 0 and "--force" in outcome.stderr
    assert target.read_bytes() == saved


def test_a_jumping_scale_is_refused_and_nothing_is_scaled(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1")
    masks = {n: Swallow(length=44 if n % 2 else 30).masks(n) for n in range(FRAMES)}
    fake.result("p1-aaaaaa", masks=masks, shift=0)
    outcome = cli("measure", "--json")
    (result,) = json.loads(outcome.stdout)["results"]
    names = {record["measure"] for record in result["measures"]}
    assert "c2_c4_length_spread" in names
    assert not {name for name in names if name.startswith(("hyoid", "pharynx"))}
    reasons = {item["measure"]: item["reason"] for item in result["not_measured"]}
    assert "no steady C2-4 length" in reasons["hyoid_xy_peak"]
    assert "bolus_pharynx_first" in names, "times need no scale"


def test_what_the_masks_cannot_support_is_not_printed(fake: FakeWorkspace, cli: Cli) -> None:
    tongue = {"name": "one", "tasks": [{"id": "tongue"}]}
    fake.study("p1-aaaaaa", "p1")
    masks = {n: {"tongue": np.ones((SIZE, SIZE), bool)} for n in range(FRAMES)}
    model = {"name": "run-001", "sha256": "0" * 64, "tasks": tongue}
    fake.result("p1-aaaaaa", masks=masks, model_facts=model)
    outcome = cli("measure", "--json")
    (result,) = json.loads(outcome.stdout)["results"]
    assert result["measures"] == []
    assert {item["measure"] for item in result["not_measured"]} == set(DEFINITIONS)
    assert "no task" in result["not_measured"][0]["reason"]


def test_what_the_model_was_not_trained_on_is_not_blamed_on_the_film(
    fake: FakeWorkspace, cli: Cli
) -> None:
    model = {"name": "run-001", "sha256": "0" * 64, "tasks": VFSS12.to_dict()}
    fake.result("p1-aaaaaa", model_facts={**model, "untrained_tasks": ["hyoid"]})
    (result,) = json.loads(cli("measure", "--json").stdout)["results"]
    why = {item["measure"]: item["reason"] for item in result["not_measured"]}
    assert why["hyoid_xy_peak"] == "the model was not trained on the hyoid bone"
    assert "c2_c4_length" in {item["measure"] for item in result["measures"]}


def test_a_frontal_view_has_no_measures(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1", view="frontal")
    fake.result("p1-aaaaaa")
    outcome = cli("measure")
    assert outcome.exit_code == 0
    assert outcome.stderr == "not measured: all measures: the view is frontal, not lateral\n"
    assert outcome.stdout == "p1-aaaaaa · run-001: nothing could be measured\n"


def test_what_is_not_measured_is_said_once_a_reason_and_of_which_study(
    fake: FakeWorkspace, cli: Cli
) -> None:
    for name in ("p1-aaaaaa", "p2-bbbbbb"):
        fake.study(name, name[:2])
        masks = {
            n: Swallow().masks(n) | {"bolus": np.zeros((SIZE, SIZE), bool)} for n in range(FRAMES)
        }
        fake.result(name, masks=masks)
    bolus = "bolus_pharynx_first, bolus_pharynx_last, bolus_pharynx_duration"
    said = cli("measure", "-q").stderr.splitlines()
    why = f"not measured: {bolus}: no bolus is seen in the pharynx"
    assert said == [f"p1-aaaaaa: {why}", f"p2-bbbbbb: {why}"]


def test_a_mirrored_patient_is_not_measured_as_if_facing_left(
    fake: FakeWorkspace, cli: Cli
) -> None:
    fake.study("p1-aaaaaa", "p1")
    masks = {
        n: {task: mask[:, ::-1] for task, mask in Swallow().masks(n).items()} for n in range(FRAMES)
    }
    fake.result("p1-aaaaaa", masks=masks, shift=0)
    outcome = cli("measure")
    assert "is the film mirrored?" in outcome.stderr


def test_bolus_still_there_at_the_end_is_flagged(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1")
    late = {n: {**Swallow().masks(n), "bolus": Swallow().masks(14)["bolus"]} for n in range(8, 30)}
    fake.result("p1-aaaaaa", masks=late, shift=0)
    flags = measured(cli)["bolus_pharynx_last"]["flags"]
    assert any("still there in the last frame" in str(flag) for flag in flags)  # type: ignore[attr-defined]


def test_a_film_without_a_swallow_says_so(fake: FakeWorkspace, cli: Cli) -> None:
    fake.study("p1-aaaaaa", "p1")
    fake.result("p1-aaaaaa", masks=dict.fromkeys(range(FRAMES), Swallow().masks(0)))
    found = measured(cli)
    for name in ("hyoid_xy_peak", "pharynx_area_ratio"):
        assert "no swallow" in str(found[name]["flags"])
    assert "bolus_pharynx_first" not in found


@pytest.mark.parametrize("times", [[0.0] * FRAMES, [float("nan")] * FRAMES, [0.0, 1.0]])
def test_times_that_make_no_sense_are_refused(
    fake: FakeWorkspace, cli: Cli, times: list[float]
) -> None:
    fake.study("p1-aaaaaa", "p1")
    fake.result("p1-aaaaaa", frame_times_s=times)
    outcome = cli("measure")
    assert outcome.exit_code == 4 and "incomplete result" in outcome.stderr


def test_naming_results(fake: FakeWorkspace, cli: Cli) -> None:
    for name in ("p1-aaaaaa", "p2-bbbbbb"):
        fake.study(name, name[:2])
        folder = fake.result(name)
    for words in (
        ["p2-bbbbbb"],
        ["p2-bbbbbb/"],
        [f"p2-bbbbbb/{folder.name}"],
        [f"results/p2-bbbbbb/{folder.name}"],
    ):
        outcome = cli("measure", *words, "--json")
        (result,) = json.loads(outcome.stdout)["results"]
        assert result["study"] == "p2-bbbbbb"
        assert result["measures_csv"] == f"results/p2-bbbbbb/{folder.name}/measures.csv"
    unknown = cli("measure", "p3")
    assert unknown.exit_code == 2
    assert "p3" in unknown.stderr


def test_a_damaged_result_is_named_as_a_good_one_is(
    fake: FakeWorkspace, cli: Cli, tmp_path: Path
) -> None:
    folder = fake.result("p1-aaaaaa")
    (folder / "run.json").write_text("{")
    fake.result("p2-bbbbbb")
    key = f"p1-aaaaaa/{folder.name}"
    for word in ("p1-aaaaaa", f"{key}/", "results/p1-aaaaaa", f"results/{key}", str(folder)):
        outcome = cli("measure", word, "--json")
        assert outcome.exit_code == 4, word
        body = json.loads(outcome.stdout)
        assert body["results"] == [] and [one["input"] for one in body["failed"]] == [key]
    for word in ("p", "p1", "p1-aaaaaa/run"):
        assert cli("measure", word).exit_code == 2, "a beginning is no name"


def test_one_damaged_result_does_not_stop_the_others(fake: FakeWorkspace, cli: Cli) -> None:
    for name in ("p1-aaaaaa", "p2-bbbbbb", "p3-cccccc"):
        fake.study(name, name[:2])
    broken = fake.result("p1-aaaaaa")
    (broken / "masks/c2/000007.png").write_bytes(b"\x89PNG broken")
    (fake.result("p2-bbbbbb") / "run.json").write_text("{")
    fake.result("p3-cccccc")
    outcome = cli("measure", "--json")
    body = json.loads(outcome.stdout)
    assert outcome.exit_code == 3
    assert [result["study"] for result in body["results"]] == ["p3-cccccc"]
    errors = {item["input"].partition("/")[0]: item["error"] for item in body["failed"]}
    assert "masks/c2/000007.png" in errors["p1-aaaaaa"]
    assert "run.json" in errors["p2-bbbbbb"]
    assert not (broken / "measures.csv").exists()


def test_a_film_segmented_again_after_its_ingest_is_measured_once(
    fake: FakeWorkspace, cli: Cli
) -> None:
    fake.study("pa-aaaaaa", "pa")
    raw = {"source_sha256": digest("pa-aaaaaa")}
    fake.result("s-0123456789", **raw)
    (alone,) = json.loads(cli("measure", "--json").stdout)["results"]
    assert (alone["study"], alone["patient"]) == ("s-0123456789", "pa")
    fake.result("pa-aaaaaa")
    fake.result("s-0123456789", model="run-002", **raw)
    both = json.loads(cli("measure", "--json").stdout)["results"]
    told = {(one["study"], one["model"]["name"]) for one in both}
    assert told == {("pa-aaaaaa", "run-001"), ("s-0123456789", "run-002")}


def test_no_results_yet(cli: Cli) -> None:
    outcome = cli("measure")
    assert outcome.exit_code == 4
    assert "vfss segment" in outcome.stderr


@pytest.mark.parametrize("seed", [3, 6])
def test_measures_agree_with_what_the_simulator_knows(
    fake: FakeWorkspace, cli: Cli, seed: int
) -> None:
    """The simulator's exact masks, through files and the command, against its own truth."""
    options = SimulateOptions(size=256, seconds=2.5, kind="swallow", extras=False)
    simulated = simulate_study(seed, 0, options)
    times = list(simulated.frame_times_s)
    masks = {n: {task: simulated.masks[task][n] for task in VFSS12.ids} for n in range(len(times))}
    size = dict(zip(("height", "width"), simulated.frames.shape[1:], strict=True))
    facts = {"frames": len(times), "frame_times_s": times, **size}
    fake.study("p1-aaaaaa", "p1", facing=simulated.facing, **facts)
    fake.result("p1-aaaaaa", masks=masks, shift=0, n=len(times), **facts)
    found, truth = measured(cli), simulated.measures
    assert found["c2_c4_length"]["value"] == pytest.approx(truth["c2_4_px"], rel=0.03)
    for part in ("x", "y", "xy"):
        ours = found[f"hyoid_corner_{part}_peak"]["value"]
        assert ours == pytest.approx(truth[f"hyoid_{part}_peak_pct"], abs=6)
    assert abs(int(str(found["hyoid_corner_xy_peak"]["frames"])) - truth["hyoid_peak_frame"]) <= 2
    if truth["pharynx_area_mpc_pct"] is not None:
        area = found["pharynx_area_min"]["value"]
        assert area == pytest.approx(truth["pharynx_area_mpc_pct"], rel=0.1)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.45, 0.45), st.floats(36, 48))
def test_corners_are_found_however_the_head_is_tilted(tilt: float, length: float) -> None:
    swallow = Swallow(tilt=tilt, length=length, origin=(85, 100))
    masks = swallow.masks(0)
    spine = find_spine(masks["c2"], masks["c4"])
    assert spine is not None
    assert np.hypot(*(spine.a4 - swallow.point(0, 0))) < 2.5
    assert np.hypot(*(spine.a2 - swallow.point(0, 100))) < 2.5
    mirrored = find_spine(masks["c2"][:, ::-1], masks["c4"][:, ::-1], facing="right")
    assert mirrored is not None
    assert mirrored.length_px == pytest.approx(spine.length_px)


def test_specks_do_not_move_a_corner() -> None:
    masks = Swallow().masks(0)
    before = find_spine(masks["c2"], masks["c4"])
    masks["c4"][150:153, 2:5] = True
    after = find_spine(masks["c2"], masks["c4"])
    assert before is not None and after is not None
    assert np.allclose(before.a4, after.a4)


def test_no_frame_of_reference_without_a_vertebra_or_upside_down() -> None:
    masks = Swallow().masks(0)
    nothing = np.zeros((SIZE, SIZE), bool)
    assert find_spine(nothing, masks["c4"]) is None
    assert find_spine(masks["c4"], masks["c4"]) is None


def test_a_lone_failure_is_a_spike_and_a_sharp_minimum_is_not() -> None:
    quiet = np.full(30, 100.0)
    quiet[12] = 10
    found, count = without_spikes(quiet)
    assert count == 1 and np.isnan(found[12])
    constriction = np.full(30, 100.0)
    constriction[10:17] = [80, 60, 35, 10, 35, 60, 80]
    assert without_spikes(constriction)[1] == 0


def test_a_lone_value_among_missing_ones_is_compared_with_the_nearest_there_are() -> None:
    trace = np.full(40, 110.0)
    trace[10:20] = np.nan
    trace[15] = 180.0
    found, count = without_spikes(trace)
    assert count == 1 and np.isnan(found[15])


def test_one_pulse_is_no_passage_and_repeats_are_no_gap() -> None:
    times = np.arange(12) / 10.0
    new = np.arange(12) % 4 == 0
    there = np.zeros(12, bool)
    there[4:8] = True
    assert passages(there, times, new) == []
    there[8:] = True  # the next pulse, 0.4 s later
    assert passages(there, times, new) == [(4, 8)]


@given(st.sets(st.integers(0, 60)))
def test_spans_name_each_frame_once(frames: set[int]) -> None:
    named: set[int] = set()
    for part in spans(sorted(frames)).split():
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == frames
