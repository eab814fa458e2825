"""View and side: how they are decided from frames, and the network that tells them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_films import write_dicom
from vfss_distill.errors import WeightsMismatch, WeightsMissing
from vfss_distill.intake import view as view_module
from vfss_distill.intake.boxes import Box
from vfss_distill.intake.view import (
    CLASSES,
    decide,
    header_view,
    mean_probabilities,
    word_of,
)
from vfss_distill.intake.view_model import SIZE, load_model, packaged_model, prepare
from vfss_distill.simulate.population import SHIFTED, TRAIN
from view_patients import FIRST_SEED, swallow


class TestDecision:
    @pytest.fixture
    def saying(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def say(*means: float) -> None:
            monkeypatch.setattr(view_module, "mean_probabilities", lambda frames: list(means))

        return say

    def test_the_picture_when_it_is_sure(self, saying: Any) -> None:
        saying(0.02, 0.95, 0.02, 0.01)
        decision = decide([])
        assert (decision.facing, decision.by, decision.mirrored) == ("right", "model", True)
        assert decision.confidence == 0.95 and not decision.warning
        assert decide([], hint="right").by == "model"

    def test_a_header_that_disagrees_with_a_sure_picture_is_told(self, saying: Any) -> None:
        saying(0.95, 0.02, 0.02, 0.01)
        for hint in ("right", "frontal"):
            decision = decide([], hint=hint)
            assert decision.facing == "left" and "header" in decision.warning
        assert not decide([], hint="lateral").warning

    def test_a_header_settles_only_what_the_picture_leans_to(self, saying: Any) -> None:
        saying(0.2, 0.7, 0.05, 0.05)
        assert (decide([], hint="right").facing, decide([], hint="right").by) == ("right", "header")
        for hint in ("", "left", "frontal", "lateral"):
            assert (decide([], hint=hint).by, decide([], hint=hint).mirrored) == ("assumed", False)
        saying(0.02, 0.5, 0.45, 0.03)
        assert decide([], hint="lateral").facing == "right"

    def test_a_known_lateral_film_needs_only_its_side(self, saying: Any) -> None:
        saying(0.02, 0.4, 0.5, 0.08)
        assert decide([], listed="lateral").facing == "right"
        saying(0.3, 0.4, 0.2, 0.1)
        assert decide([], listed="lateral").by == "assumed"

    def test_the_table_needs_no_picture(self) -> None:
        assert decide([], listed="frontal").view == "frontal"
        assert decide([], listed="right").mirrored
        assert word_of("frontal", "left") == "frontal" and word_of("", "left") == "left"

    def test_empty_frames_have_no_say(self) -> None:
        dark = [np.zeros((128, 128), np.uint8)] * 4
        decision = decide([*dark, *swallow().frames])
        assert (decision.facing, decision.by) == ("left", "model")
        assert decide(dark).by == "assumed"

    @pytest.mark.parametrize(
        ("header", "word"),
        [
            ({"PatientOrientation": ["A", "F"]}, "right"),
            ({"PatientOrientation": ["P", "F"]}, "left"),
            ({"PatientOrientation": ["AR", "FP"]}, "right"),
            ({"PatientOrientation": ["L", "F"]}, "frontal"),
            ({"PatientOrientation": ["A", "H"]}, ""),
            ({"PatientOrientation": "A"}, ""),
            ({"PatientOrientation": None, "ViewPosition": "LL "}, "lateral"),
            ({"ViewPosition": "PA"}, "frontal"),
            ({"ViewPosition": "XX"}, ""),
            ({}, ""),
        ],
    )
    def test_headers(self, header: dict[str, Any], word: str) -> None:
        assert header_view(header) == word

    def test_a_dicom_file_hands_its_hint_on(self, tmp_path: Path) -> None:
        from vfss_distill.intake.source import open_source

        path = tmp_path / "a.dcm"
        write_dicom(path, frames=3, PatientOrientation=["A", "F"])
        assert open_source(path).info.view_hint == "right"

    def test_boxes_mirror(self) -> None:
        box = Box(3, 5, 10, 4, "border")
        assert box.mirrored(100) == Box(87, 5, 10, 4, "border")
        assert box.mirrored(100).mirrored(100) == box


class TestModel:
    def test_unseen_patients(self) -> None:
        """A floor, not the figure: docs/view.md has that."""
        right_answers = wrong = 0
        for number in range(16):
            ranges = replace((TRAIN, SHIFTED)[number % 2], mirrored_share=0.5)
            study = swallow(FIRST_SEED + 100 + number, ranges, frames=4)
            decision = decide(study.frames)
            right_answers += decision.by == "model" and decision.facing == study.facing
            wrong += decision.by == "model" and decision.facing != study.facing
        assert right_answers >= 13 and wrong <= 1

    @settings(max_examples=20, deadline=None)
    @given(
        st.integers(24, 200), st.integers(24, 200), st.integers(0, 2**31), st.sampled_from([0, 1])
    )
    def test_mirroring_swaps_the_sides_and_nothing_else(
        self, height: int, width: int, seed: int, smooth: int
    ) -> None:
        rng = np.random.default_rng(seed)
        grey = rng.integers(0, 256, (height, width)).astype(np.uint8)
        grey = cv2.GaussianBlur(grey, (0, 0), 4) if smooth else grey
        one, other = packaged_model().probabilities([grey, np.ascontiguousarray(grey[:, ::-1])])
        assert abs(one.sum() - 1) < 1e-5
        assert np.allclose(one, other[[1, 0, 2, 3]], atol=1e-5)

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.2, 1.0), st.floats(0, 40))
    def test_brightness_and_contrast_say_nothing(self, contrast: float, shift: float) -> None:
        x = np.random.default_rng(0).random((90, 120)).astype(np.float32) * 200
        assert np.allclose(prepare(x), prepare(x * contrast + shift), atol=1e-3)
        assert prepare(x).shape == (SIZE, SIZE) and not prepare(x)[:8].any()

    def test_one_flat_frame(self) -> None:
        said = packaged_model().probabilities([np.full((5, 7), 9, np.uint8)])
        assert said.shape == (1, len(CLASSES)) and np.isfinite(said).all()

    def test_it_is_small_and_holds_no_pickle(self, tmp_path: Path) -> None:
        path = Path(__file__).parents[1] / "models" / "weights" / "view-side.npz"
        assert path.stat().st_size < 300_000
        load_model(path)
        with pytest.raises(WeightsMissing):
            load_model(tmp_path / "none.npz")
        for content in ({"conv0": np.zeros(3)}, {"conv0": np.array([{}], object)}):
            np.savez(tmp_path / "bad.npz", **content)
            with pytest.raises(WeightsMismatch):
                load_model(tmp_path / "bad.npz")
        (tmp_path / "torn.npz").write_bytes(path.read_bytes()[:5000])
        with pytest.raises(WeightsMismatch):
            load_model(tmp_path / "torn.npz")

    def test_a_heart_is_no_swallow(self, shared_data: Path) -> None:
        from vfss_distill.intake.source import open_source

        cine = open_source(shared_data / "xa-coronary-cine" / "xa_96frames.dcm")
        frames = [frame.grey for frame in cine.frames()]
        means = mean_probabilities(frames)
        assert decide(frames).by == "assumed", means
