"""Outlines, runs and brushes are exact, whatever the mask."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from label_world import dice
from vfss_distill.errors import LabelError
from vfss_distill.intake.formats.annotations import Annotations
from vfss_distill.intake.formats.outlines import Polygon, fill, outline, trace
from vfss_distill.intake.formats.runs import (
    Brush,
    Runs,
    boxed_runs,
    coco_counts,
    coco_text,
    counts_of,
    pack_brush,
)

masks_2d = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(masks_2d)
def test_outlines_traced_along_pixels_are_exact(mask: np.ndarray) -> None:
    assert np.array_equal(fill(trace(mask), mask.shape), mask)


@settings(max_examples=60)
@given(masks_2d)
def test_outlines_with_holes_keep_their_dice(mask: np.ndarray) -> None:
    drawn = np.zeros_like(mask)
    for ring in outline(mask):
        drawn |= Polygon.of(ring).draw(mask.shape)
    assert dice(drawn, mask) >= 0.99


@given(masks_2d)
def test_runs_are_exact(mask: np.ndarray) -> None:
    for by_column in (True, False):
        counts = counts_of(mask, by_column=by_column)
        drawn = Runs(np.array(counts, np.int64), by_column=by_column).draw(mask.shape)
        assert np.array_equal(drawn, mask)
    assert np.array_equal(boxed_runs(mask).draw(mask.shape), mask)
    assert np.array_equal(Brush(bytes(pack_brush(mask))).draw(mask.shape), mask)


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_coco_text_is_exact(counts: list[int]) -> None:
    assert coco_counts(coco_text(counts)) == counts


def test_coco_text_of_the_coco_api() -> None:
    # Worked by hand from rleToString of cocoapi's maskApi.c: 6 bits less 48, deltas from the third.
    assert coco_text([6, 2, 3, 2, 7]) == "62304"
    assert coco_text([40, 100]) == "X1T3"


@given(st.binary(max_size=60))
def test_brushes_of_noise_are_refused(noise: bytes) -> None:
    with pytest.raises(LabelError):
        Brush(noise).draw((7, 9))


def test_annotations_know_their_labels() -> None:
    found = Annotations(Path("x"), "coco")
    assert found.know("b") == "b" and found.know("a") and found.labels == ["b", "a"]


@settings(max_examples=40)
@given(masks_2d, st.floats(-4e-4, 4e-4))
def test_outlines_survive_rounding(mask: np.ndarray, error: float) -> None:
    for ring in outline(mask):
        exact = fill([ring], mask.shape)
        assert np.array_equal(fill([ring * (1 + error / 10)], mask.shape), exact)


def test_an_outline_that_goes_to_and_fro_is_filled_in_little_memory() -> None:
    across = np.arange(10_000)
    ring = np.stack([across / 100, np.where(across % 2, -1.0, 200.5)], 1)
    tracemalloc.start()
    drawn = fill([ring], (200, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.any() and peak < 40e6  # all edges at once take 97 MB
