"""Frames reach each teacher as its own processor would prepare them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from vfss_distill.models.teachers import preprocess
from vfss_distill.models.teachers.card import load_card
from vfss_distill.models.teachers.preprocess import Preprocessing, crop, pad, stretch

Tensors = dict[str, Tensor]


def picture(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    smooth = 120 + 80 * np.sin(x / 9) * np.cos(y / 13)
    smooth[: height // 3, : width // 4] = 255  # an edge that makes cubic kernels overshoot
    return np.clip(smooth + generator.normal(0, 12, (height, width)), 0, 255).astype(np.uint8)


SIZES = [(512, 512), (240, 320), (700, 1100), (61, 97)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_medsam_stretches_as_skimage_does(height: int, width: int) -> None:
    """skimage.transform.resize(order=3, anti_aliasing=True, preserve_range=True).astype(uint8),
    written out with scipy in two dimensions, so that skimage itself is not needed.
    """
    from scipy import ndimage

    image = picture(height, width)
    size = 1024
    factors = np.array(image.shape) / size
    sigma = np.maximum(0, (factors - 1) / 2)
    blurred = ndimage.gaussian_filter(image.astype(float), sigma, mode="mirror")
    zoomed = ndimage.zoom(blurred, 1 / factors, order=3, mode="mirror", grid_mode=True)
    expected = np.clip(zoomed, image.min(), image.max()).astype(np.uint8)
    ours = stretch(torch.from_numpy(image)[None], size)[0].numpy()
    assert np.abs(ours - expected).max() <= 1
    assert (ours != expected).mean() < 1e-3
    images = Preprocessing.of(load_card("medsam"), size)(torch.from_numpy(image)[None])
    low, high = float(expected.min()), float(expected.max())
    np.testing.assert_allclose(images[0, 1], (expected - low) / (high - low), atol=1.01 / 255)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_raddino_crops_as_its_processor_does(height: int, width: int) -> None:
    image = picture(height, width)
    size, short = 518, min(height, width)
    scaled = Image.fromarray(image).resize(
        (size * width // short, size * height // short), Image.Resampling.BICUBIC
    )
    top, left = (scaled.height - size) // 2, (scaled.width - size) // 2
    expected = np.asarray(scaled, float)[top : top + size, left : left + size]
    ours = crop(torch.from_numpy(image)[None], size)[0].numpy()
    assert np.abs(ours - expected).max() <= 1
    images = Preprocessing.of(load_card("raddino"), size)(torch.from_numpy(image)[None])
    assert images.shape == (1, 3, size, size)
    np.testing.assert_allclose(images[0, 2], (expected / 255 - 0.5307) / 0.2583, atol=0.016)


def test_raddino_agrees_with_transformers_own_processor() -> None:
    from transformers import BitImageProcessor

    processor = BitImageProcessor(
        size={"shortest_edge": 518},
        crop_size={"height": 518, "width": 518},
        resample=3,
        image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
    )
    image = picture(240, 320)
    expected = processor(Image.fromarray(image).convert("RGB"), return_tensors="pt").pixel_values
    ours = Preprocessing.of(load_card("raddino"), 518)(torch.from_numpy(image)[None])
    # One grey level is 1 / 255 / 0.2583 = 0.0152; an odd margin may shift the crop by a pixel.
    assert (ours - expected).abs().mean() < 0.01


@pytest.mark.parametrize("height, width", [(61, 61), (61, 97), (128, 96)])
def test_a_small_film_fills_the_square_as_the_student_sees_it(height: int, width: int) -> None:
    """MedCLIP's processor leaves pictures smaller than 224 small within black: every place of
    its map would be another than the student's."""
    longer = max(height, width)
    square = np.full((longer, longer), 9, np.uint8)
    square[:height, :width] = 200
    shown = pad(torch.from_numpy(square)[None], 224)[0]
    assert (shown > 100).float().mean() == pytest.approx(height * width / longer**2, abs=0.02)
    bare = pad(torch.full((1, height, width), 200, dtype=torch.uint8), 224)[0] > 100
    assert int(bare.any(1).sum()) == pytest.approx(224 * height / longer, abs=1)
    assert int(bare.any(0).sum()) == pytest.approx(224 * width / longer, abs=1)


@pytest.mark.parametrize(("height", "width"), SIZES[:-1])
def test_medclip_pads_as_its_processor_does(height: int, width: int) -> None:
    image = picture(height, width)
    side = max(224, height, width)
    square = Image.new("L", (side, side), 0)
    square.paste(Image.fromarray(image), (int((side - width) / 2), int((side - height) / 2)))
    expected = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC), float)
    ours = pad(torch.from_numpy(image)[None], 224)[0].numpy()
    assert np.abs(ours - expected).max() <= 1
    images = Preprocessing.of(load_card("medclip"), 224)(torch.from_numpy(image)[None])
    mean, std = 0.5862785803043838, 0.27950088968644304
    np.testing.assert_allclose(images[0, 0], (expected / 255 - mean) / std, atol=0.015)


def test_biomedclip_uses_one_mean_per_channel() -> None:
    blank = torch.full((1, 300, 200), 255, dtype=torch.uint8)
    images = Preprocessing.of(load_card("biomedclip"), 224)(blank)
    expected = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258]
    assert images.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(images[0, :2, 5, 5], expected, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 255),
    st.sampled_from(["stretch", "crop", "pad"]),
    st.sampled_from(["unit", "minmax"]),
)
def test_any_size_and_a_blank_frame_give_finite_images(
    height: int, width: int, grey: int, resize: str, intensity: str
) -> None:
    frames = torch.full((2, height, width), grey, dtype=torch.uint8)
    rule = Preprocessing(32, resize, intensity, (0.0,), (1.0,))
    images = rule(frames)
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


def test_frames_must_be_raw_grey() -> None:
    rule = Preprocessing.of(load_card("medsam"), 64)
    for wrong in (torch.zeros(2, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            rule(wrong)


def test_resize_weights_keep_brightness() -> None:
    for weights in (preprocess._cubic(97, 40), preprocess._spline(97, 40)):
        torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
