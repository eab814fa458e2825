"""The cheap ways of augmentation do what the plain ones do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vfss_distill.distill import augment
from vfss_distill.distill.data import pack, shares, unpack


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("side", "size"), [(4, 64), (5, 33)])
def test_smooth_is_bicubic(side: int, size: int) -> None:
    coarse = torch.randn(3, 2, side, side, generator=seeded())
    plain = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    torch.testing.assert_close(augment._smooth(coarse, size), plain, atol=1e-5, rtol=1e-5)


def test_blur_is_two_means() -> None:
    grey = torch.rand(2, 3, 17, 17, generator=seeded())
    padded = F.pad(grey, (2, 2, 2, 2), mode="replicate")
    plain = F.avg_pool2d(F.avg_pool2d(padded, 3, stride=1), 3, stride=1)
    torch.testing.assert_close(augment._blurred(grey), plain)


@given(st.integers(1, 37), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shares_are_the_means_of_masks(tasks: int, cell: int, seed: int) -> None:
    masks = torch.rand(2, tasks, 16, 16, generator=seeded(seed)) > 0.4
    masks[0, 0] = True  # every cell full: the largest count
    planes = pack(masks)
    assert torch.equal(unpack(planes, tasks) > 0, masks)
    assert torch.equal(shares(planes, tasks, cell), F.avg_pool2d(unpack(planes, tasks), cell))


def test_a_batch_is_a_function_of_its_generator_and_leaves_its_frames() -> None:
    frames = 255 * torch.rand(6, 3, 64, 64, generator=seeded())
    planes = (frames[:, :1] > 128).float()
    kept = frames.clone()

    def made(seed: int) -> list[torch.Tensor]:
        generator = seeded(seed)
        seen = augment.photometric(frames, generator)
        moved = augment.geometric(seen, planes, generator, 0.5)
        return [seen, *moved, *augment.blanked(*moved, generator, 0.5)]

    assert all(map(torch.equal, made(1), made(1)))
    assert not any(map(torch.equal, made(1), made(2)))
    assert torch.equal(frames, kept)


def test_a_field_turns_scales_and_shifts_as_said() -> None:
    field = augment._field(200, 64, torch.device("cpu"), seeded())
    # Along the middle row and column: how far the sampling position moves from edge to edge.
    across = (field[:, :, 32, -1] - field[:, :, 32, 0]).norm(dim=1) / 2
    down = (field[:, :, -1, 32] - field[:, :, 0, 32]).norm(dim=1) / 2
    for side in (across, down):
        assert 0.65 < side.min() < 0.85
        assert 1.2 < side.max() < 1.5
    centre = field[:, :, 31:33, 31:33].mean((2, 3))
    assert 0.15 < centre.abs().max() < 0.3
    turned = (field[:, 1, 32, -1] - field[:, 1, 32, 0]) / (2 * across)
    assert 0.2 < turned.max() < 0.35  # sin 15° is .26


def test_behind_a_collimator_there_is_no_mask() -> None:
    frames, planes = torch.full((40, 1, 64, 64), 200.0), torch.full((40, 2, 64, 64), 5.0)
    seen, labelled = augment.collimated(frames, planes, seeded(), probability=0.5)
    covered = seen[:, 0] == 0
    assert torch.equal(labelled == 0, covered[:, None].expand_as(labelled))
    assert 0.3 < covered.flatten(1).any(1).float().mean() < 0.7
    assert covered.float().mean((1, 2)).max() < 0.7


def test_the_frame_before_lingers_in_some() -> None:
    frames, before = torch.full((400, 1, 8, 8), 200, dtype=torch.uint8), torch.zeros(400, 1, 8, 8)
    seen = augment.lingering(frames, before, seeded(), probability=0.5)
    assert seen.flatten(1).std(1).max() < 1e-3  # as a whole
    share = 1 - seen[:, 0, 0, 0] / 200
    assert 0.4 < (share > 0).float().mean() < 0.6
    assert 0.6 < share.max() <= 0.65


def test_strangers_come_beside_some_frames_never_in_their_place() -> None:
    frames = torch.arange(300.0).repeat_interleave(3).view(300, 3, 1, 1).repeat(1, 1, 4, 4)
    seen = augment.spliced(frames, seeded(), probability=0.5)
    assert torch.equal(seen[:, 1], frames[:, 1])
    foreign = (seen != frames).flatten(2).any(2)
    assert torch.equal(seen[:, 0][foreign[:, 0]], frames.roll(1, 0)[:, 0][foreign[:, 0]])
    assert 0.35 < foreign.any(1).float().mean() < 0.55
    assert 0 < foreign[:, [0, 2]].all(1).sum() < foreign.any(1).sum()  # one side, or both


def test_mirrored_frames_face_the_other_way() -> None:
    frames = torch.linspace(0, 255, 64).expand(8, 1, 64, 64).contiguous()
    planes = (frames > 128).float()
    for share, sign in ((0.0, 1), (1.0, -1)):
        moved, bits = augment.geometric(frames, planes, seeded(), share)
        slope = moved[..., 26:38, 40].mean((1, 2)) - moved[..., 26:38, 24].mean((1, 2))
        assert (sign * slope > 0).all()
        assert (sign * (bits[..., 32, 56] - bits[..., 32, 8]) >= 0).all()
