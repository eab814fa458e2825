"""Filling the cache: what is told before, what a byte costs, and that a flipped bit is found."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tiny_studies import write_study
from vfss_distill import claims
from vfss_distill.claims import Claims
from vfss_distill.distill import cache
from vfss_distill.distill.cache import Job, Recipe, fill_cache
from vfss_distill.distill.features import TeacherFeatures
from vfss_distill.distill.forecast import Forecast, duration
from vfss_distill.distill.packing import PackingLoss, checksum, pack, unpack
from vfss_distill.distill.shelf import CLAIMS
from vfss_distill.errors import StorageError, WorkspaceError
from vfss_distill.intake.study import Study
from vfss_distill.workspace import Workspace
from watched import holder

CHANNELS, GRID = 6, 4


class Teacher:
    """Features of very different sizes by channel, that follow the frame."""

    def __init__(self) -> None:
        self.frames = 0

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        self.frames += len(frames)
        small = torch.nn.functional.adaptive_avg_pool2d(frames[:, None].float(), GRID) / 255
        sizes = 10.0 ** torch.arange(-3, CHANNELS - 3)
        return small * sizes.view(1, -1, 1, 1) + 3.0


@pytest.fixture
def studies(tmp_path: Path) -> list[Study]:
    return [write_study(Workspace(tmp_path), patient) for patient in ("pa", "pb")]


def fill(
    studies: list[Study],
    root: Path,
    numbers: str = "float16",
    teacher: Teacher | None = None,
    frames: Sequence[int] = range(6),
) -> tuple[Path, Recipe, list[str]]:
    said: list[str] = []
    recipe = Recipe("t", "0" * 64, "f", CHANNELS, GRID, numbers)
    jobs = [Job(study, tuple(frames)) for study in studies]
    folder = fill_cache(
        teacher or Teacher(), recipe, jobs, root, batch_size=2, say=said.append, tick=lambda *_: 0
    )
    return folder, recipe, said


def read(
    folder: Path, recipe: Recipe, studies: list[Study], frames: Sequence[int] = range(6)
) -> torch.Tensor:
    keys = [(number, frame) for number in range(2) for frame in frames]
    return TeacherFeatures(folder, recipe, studies, keys).batch(keys)


def test_size_and_time_are_told_before_the_first_study_is_done(
    studies: list[Study], tmp_path: Path
) -> None:
    _, _, said = fill(studies, tmp_path / "cache")
    assert said[0].startswith("t: 12 frames of 2 studies to compute, 1 MB at 4×4×6")
    assert "frames a second, about 1 s in all" in said[1]


def test_a_flipped_bit_is_found_and_mended(studies: list[Study], tmp_path: Path) -> None:
    folder, recipe, _ = fill(studies, tmp_path / "cache")
    whole = read(folder, recipe, studies)
    path = folder / f"{studies[0].id}.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    assert not torch.equal(read(folder, recipe, studies), whole)
    teacher = Teacher()
    _, _, said = fill(studies, tmp_path / "cache", teacher=teacher)
    assert f"{studies[0].id} do not have their checksum; computing them again" in said[0]
    assert teacher.frames == 6
    assert torch.equal(read(folder, recipe, studies), whole)


def test_a_byte_each_halves_the_space_and_says_what_it_costs(
    studies: list[Study], tmp_path: Path
) -> None:
    half, recipe, _ = fill(studies, tmp_path / "cache")
    byte, packed, said = fill(studies, tmp_path / "cache", "int8")
    assert half != byte
    assert packed.bytes_for(10) * 2 == recipe.bytes_for(10)
    stored = load_file(byte / f"{studies[0].id}.safetensors")
    assert stored["features"].dtype == torch.int8
    assert stored["scale"].shape == (CHANNELS,)
    expected, found = read(half, recipe, studies), read(byte, packed, studies)
    for channel in range(CHANNELS):
        spread = expected[:, channel].std()
        # Half floats near 3 are .002 apart: the first channel varies by less than that.
        assert (expected - found)[:, channel].abs().max() < 0.03 * spread + 0.002
    (line,) = [line for line in said if "int8 costs" in line]
    share = float(line.split("costs ")[1].split("%")[0])
    assert 0.1 < share < 1
    assert fill(studies, tmp_path / "cache", "int8")[2] == ["t: features of 2 studies are cached"]


def test_a_study_alone_is_counted_as_one(studies: list[Study], tmp_path: Path) -> None:
    fill(studies[:1], tmp_path / "cache")
    assert fill(studies[:1], tmp_path / "cache")[2] == ["t: features of 1 study are cached"]


def test_the_kind_of_number_does_not_change_the_key_of_halves() -> None:
    recipe = Recipe("t", "0" * 64, "f", 6, 4)
    assert recipe.digest[:12] == "27e6be879867"
    assert Recipe("t", "0" * 64, "f", 6, 4, "int8").digest != recipe.digest


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_packing_errs_by_half_a_step_at_most(
    frames: int, channels: int, size: float, middle: float
) -> None:
    generator = torch.Generator().manual_seed(channels)
    features = (torch.randn(frames, channels, 3, 3, generator=generator) * size + middle).half()
    parts = pack(features, "int8")
    offset, scale = parts["offset"].numpy(), parts["scale"].numpy()
    for row in range(frames):
        back = unpack(parts["features"][row].numpy(), offset, scale)
        error = np.abs(back - features[row].float().numpy()).max((1, 2))
        assert (error <= 0.51 * scale + 1e-5 * abs(middle)).all()
    loss = PackingLoss()
    loss.add(features, parts)
    assert 0 <= loss.share < 0.05 or features.std() < 0.1 * abs(middle)
    lossless = PackingLoss()
    lossless.add(features, pack(features, "float16"))
    assert lossless.share == 0


def test_constant_features_survive_packing() -> None:
    features = torch.full((2, 3, 2, 2), 1.5).half()
    parts = pack(features, "int8")
    back = unpack(parts["features"][0].numpy(), parts["offset"].numpy(), parts["scale"].numpy())
    assert (back == 1.5).all()


def test_a_checksum_is_of_names_and_numbers() -> None:
    one = {"a": torch.arange(4), "b": torch.zeros(2, dtype=torch.float16)}
    assert checksum(one) == checksum(dict(reversed(one.items())))
    assert checksum(one) != checksum({**one, "a": torch.arange(1, 5)})
    assert checksum(one) != checksum({"a": one["a"], "c": one["b"]})


def test_a_forecast_is_corrected_once_by_the_first_study() -> None:
    now, said = [0.0], []
    forecast = Forecast("medsam", 1000, said.append, lambda: now[0])
    now[0] = 60.0  # the first batch of 4, with warming up
    forecast.seen(4)
    assert said == ["medsam: 15.0 s a frame, about 4.2 h in all"]
    now[0] = 500.0
    forecast.seen(50)
    assert len(said) == 1
    now[0] = 1000.0
    forecast.seen(100, whole_study=True)
    assert said[1:] == ["medsam: 10.0 s a frame over the first study, about 2.5 h to go"]
    now[0] = 9000.0
    forecast.seen(200, whole_study=True)
    assert len(said) == 2


def test_a_forecast_that_held_is_not_repeated() -> None:
    now, said = [0.0], []
    forecast = Forecast("t", 100, said.append, lambda: now[0])
    for done in range(4, 101, 4):
        now[0] += 4.0
        forecast.seen(done, whole_study=done % 20 == 0)
    assert said == ["t: 1.0 s a frame, about 2 min in all"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "1 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# ---- several runs with other frames, one cache


@pytest.mark.parametrize("numbers", ["float16", "int8"])
def test_runs_with_other_frames_add_theirs_and_take_none_away(
    studies: list[Study], tmp_path: Path, numbers: str
) -> None:
    root, teacher = tmp_path / "cache", Teacher()
    folder, recipe, _ = fill(studies, root, numbers, teacher, (0, 2, 4))
    first = TeacherFeatures(folder, recipe, studies, [])
    before = read(folder, recipe, studies, (0, 2, 4))
    _, _, said = fill(studies, root, numbers, teacher, (0, 3))
    assert said[0].startswith("t: 2 frames of 2 studies to compute")
    fill(studies, root, numbers, teacher, (5, 4))
    assert teacher.frames == 2 * 5
    # The first run finds its own, the same to the bit: it may be going on, or be resumed.
    assert torch.equal(first.batch([(0, 0), (0, 2), (0, 4)]), before[:3])
    assert torch.equal(read(folder, recipe, studies, (0, 2, 4)), before)
    assert fill(studies, root, numbers, frames=(0, 2, 3, 4, 5))[2] == [
        "t: features of 2 studies are cached"
    ]
    there = (0, 2, 3, 4, 5)
    expected, _, _ = fill(studies, tmp_path / "at once", "float16", frames=there)
    one, two = read(expected, recipe, studies, there), read(folder, recipe, studies, there)
    spread = one.flatten(2).std((0, 2), keepdim=True)[..., None]
    loss = 0.03 * spread + 0.002 if numbers == "int8" else torch.zeros(1)
    assert ((one - two).abs() <= loss).all()


def test_frames_are_added_to_none_but_a_whole_shard_of_the_same_frames(
    studies: list[Study], tmp_path: Path
) -> None:
    root, teacher = tmp_path / "cache", Teacher()
    folder, recipe, _ = fill(studies, root, frames=(0, 2))
    damaged = folder / f"{studies[0].id}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    (studies[1].folder / "frames" / "000002.png").unlink()  # ingested anew, with fewer
    _, _, said = fill(studies, root, teacher=teacher, frames=(0, 3))
    assert f"{studies[0].id} are damaged; computing them again" in said[0]
    assert f"{studies[1].id} are of other frames; computing them again" in said[1]
    assert teacher.frames == 4
    assert read(folder, recipe, studies, (0, 3)).shape[0] == 4


def test_a_shard_that_grows_lies_twice_on_the_disk(
    studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cache"
    _, recipe, _ = fill(studies, root, frames=range(5))
    room = cache._SPARE + recipe.bytes_for(2)  # one new frame of each study
    monkeypatch.setattr(cache, "free_bytes", lambda _: room)
    with pytest.raises(StorageError, match="features of t need"):
        fill(studies, root)
    room += recipe.bytes_for(5)
    fill(studies, root)


@pytest.mark.parametrize("gone", [True, False], ids=["shard", "frame"])
def test_features_that_are_gone_when_they_are_used_end_in_one_line(
    studies: list[Study], tmp_path: Path, gone: bool
) -> None:
    """A version of vfss that knew no better put other frames in their place."""
    folder, recipe, _ = fill(studies, tmp_path / "cache", frames=(0, 2))
    features = TeacherFeatures(folder, recipe, studies, [(0, 0), (0, 2)])
    shard = folder / f"{studies[0].id}.safetensors"
    shard.unlink()
    if not gone:
        fill(studies, tmp_path / "cache", frames=(0, 3))
    with pytest.raises(WorkspaceError, match=rf"teacher t .*{studies[0].id}.*--resume"):
        features.batch([(0, 0), (0, 2)])


def test_features_held_on_a_card_are_those_on_the_disk(
    studies: list[Study], tmp_path: Path
) -> None:
    """What stands in for the card has no values, but says where it is."""
    folder, recipe, _ = fill(studies, tmp_path / "cache", frames=(0, 2))
    keys, card = [(0, 0), (0, 2)], torch.device("meta")
    features = TeacherFeatures(folder, recipe, studies, keys)
    from_disk = features.batch(keys[::-1])
    features.move_to(card, 1 << 30)  # nothing is held yet
    assert torch.equal(features.batch(keys[::-1]), from_disk)
    features.hold(1 << 30)
    features.move_to(card, from_disk.nbytes // 2 - 1)  # a byte too large, in half precision
    assert torch.equal(features.batch(keys[::-1]), from_disk)
    features.move_to(card, from_disk.nbytes // 2)
    there = features.batch(keys, card)
    assert (there.device, there.dtype, there.shape) == (card, torch.float32, from_disk.shape)


# ---- several processes, one cache


@pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")
def test_a_study_another_process_computes_is_waited_for_and_not_done_twice(
    studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = fill(studies, tmp_path / "whole")
    folder = tmp_path / "cache" / whole.name
    other, teacher = holder(folder / CLAIMS, studies[0].id), Teacher()

    def meanwhile(_: float) -> None:
        """The other one finishes its study while this one waits."""
        shard = f"{studies[0].id}.safetensors"
        (folder / shard).write_bytes((whole / shard).read_bytes())
        other.communicate("")

    monkeypatch.setattr(claims.time, "sleep", meanwhile)
    filled, _, said = fill(studies, tmp_path / "cache", teacher=teacher)
    assert teacher.frames == 6  # the second study's
    assert "t: waiting for 1 study that other processes compute" in said
    for path in whole.glob("*.safetensors"):
        one, two = load_file(path), load_file(filled / path.name)  # headers differ in their order
        assert all(torch.equal(one[name], two[name]) for name in one)
    index = json.loads((filled / "index.json").read_text())
    assert set(index["shards_bytes"]) == {study.id for study in studies}


@pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")
def test_what_a_killed_process_had_claimed_is_computed_by_another(
    studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = fill(studies, tmp_path / "whole")
    folder = tmp_path / "cache" / whole.name
    other, teacher = holder(folder / CLAIMS, studies[0].id), Teacher()
    with Claims(folder / CLAIMS) as here:
        assert not here.take(studies[0].id)
        assert here.take(studies[1].id)

    def killed(_: float) -> None:
        other.kill()
        other.communicate()

    monkeypatch.setattr(claims.time, "sleep", killed)
    fill(studies, tmp_path / "cache", teacher=teacher)
    assert teacher.frames == 12


def test_a_disk_without_locks_is_filled_all_the_same(
    studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    if claims.fcntl is not None:
        monkeypatch.setattr(claims.fcntl, "lockf", none)
    teacher = Teacher()
    fill(studies, tmp_path / "cache", teacher=teacher)
    assert teacher.frames == 12
