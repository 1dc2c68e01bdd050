"""The networks of mre_qc on simulated slices: any subset of images, any orientation, and their speed."""

import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle, open_bundle
from models.phantoms.mre.readable import REASONS
from models.phantoms.mre.samples import Sample, sample_slices
from pipelines.inputs import MRE_ARRAYS, MrePlane, MreSlice
from pipelines.mre_qc import channels
from pipelines.mre_qc.networks import SliceAnswer, slice_answers, slice_probabilities

SEED = 810_000
SEQUENCES = {"gre": "GRE", "se_epi": "SE-EPI"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("mre_qc", "cpu")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(sample_slices(SEED, 12, states=3))


def plane_of(sample: Sample, shape: tuple[int, int]) -> MrePlane:
    pixel = sample.pixel_mm
    first = (-(shape[1] - 1) / 2 * pixel, -(shape[0] - 1) / 2 * pixel, 40.0)
    return MrePlane(first, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (pixel, pixel), shape)


def slice_of(sample: Sample, roles: tuple[str, ...] = MRE_ARRAYS) -> MreSlice:
    turns = np.exp(2j * np.pi * np.arange(4) / 4)[:, None, None]
    arrays = {
        "magnitude": sample.magnitude.astype(np.float32),
        "phase": sample.phase,
        "wave": (sample.harmonic[None] * turns).real.astype(np.float32),
        "elastogram": sample.stiffness_kpa,
        "confidence": sample.confidence,
        "colour": sample.colour,
    }
    plane = plane_of(sample, sample.confidence.shape)  # type: ignore[arg-type]
    kept = {role: arrays[role] for role in roles}
    return MreSlice(position_mm=40.0, planes=dict.fromkeys(kept, plane), **kept)  # type: ignore[arg-type]


def judged(bundle: Bundle, one: MreSlice, sample: Sample) -> SliceAnswer:
    protocol = sample.protocol
    return slice_answers([one], {"mre_qc": bundle}, hz=protocol.hz, sequence=SEQUENCES[protocol.sequence])[0]


def test_clear_slices_are_told_apart(bundle: Bundle, samples: list[Sample]) -> None:
    clear = [s for s in samples if not s.truth.borderline]
    assert {s.truth.diagnostic for s in clear} == {True, False}
    for roles in (MRE_ARRAYS, ("magnitude", "phase")):
        said = [judged(bundle, slice_of(s, roles), s).diagnostic > 0.5 for s in clear]
        right = sum(a == s.truth.diagnostic for a, s in zip(said, clear, strict=True))
        assert right >= len(clear) - 2


@pytest.mark.parametrize("role", MRE_ARRAYS)
def test_one_kind_of_image_is_enough(bundle: Bundle, samples: list[Sample], role: str) -> None:
    answers = slice_answers([slice_of(s, (role,)) for s in samples[:2]], {"mre_qc": bundle}, hz=60)
    for answer in answers:
        assert answer.used == (role,)
        assert 0 <= answer.diagnostic <= 1
        assert set(answer.reasons) == set(REASONS)
        assert sum(answer.reasons.values()) == pytest.approx(1, abs=1e-4)
        assert len(answer.by_network) >= 5


def test_probabilities_are_those_of_the_answers(bundle: Bundle, samples: list[Sample]) -> None:
    slices = [slice_of(s) for s in samples[:3]]
    answers = slice_answers(slices, {"mre_qc": bundle})
    for (probability, reasons), answer in zip(slice_probabilities(slices, {"mre_qc": bundle}), answers, strict=True):
        assert probability == answer.diagnostic
        assert reasons == dict(answer.reasons)
    alone = slice_answers(slices[1:2], {"mre_qc": bundle})[0]
    assert alone.diagnostic == pytest.approx(answers[1].diagnostic, abs=1e-4)


def test_pixels_stored_in_another_order_mean_the_same(bundle: Bundle, samples: list[Sample]) -> None:
    one = slice_of(samples[0])
    expected = judged(bundle, one, samples[0])

    def turned(array: NDArray | None, role: str) -> NDArray | None:
        if array is None:
            return None
        rows, columns = (0, 1) if role == "colour" else (-2, -1)
        return np.flip(np.swapaxes(array, rows, columns), columns)

    plane = one.planes["phase"]
    rows = plane.shape[0]
    back = plane.origin_mm[1] + (rows - 1) * plane.pixel_spacing_mm[0]
    other = MrePlane(
        (plane.origin_mm[0], back, 40.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), plane.pixel_spacing_mm, plane.shape
    )
    arrays = {role: turned(getattr(one, role), role) for role in MRE_ARRAYS}
    changed = replace(one, planes=dict.fromkeys(one.planes, other), **arrays)  # type: ignore[arg-type]
    answer = judged(bundle, changed, samples[0])
    assert answer.diagnostic == pytest.approx(expected.diagnostic, abs=0.02)
    np.testing.assert_allclose(answer.on(plane), expected.on(plane), atol=0.05)


def test_scale_and_place_of_the_images_do_not_matter(bundle: Bundle, samples: list[Sample]) -> None:
    one = slice_of(samples[0], ("magnitude", "phase"))
    expected = judged(bundle, one, samples[0]).diagnostic
    plane = one.planes["phase"]
    away = replace(plane, origin_mm=tuple(x + 30.0 for x in plane.origin_mm))  # type: ignore[arg-type]
    changed = replace(one, magnitude=one.magnitude * 517.0, planes=dict.fromkeys(one.planes, away))  # type: ignore
    assert judged(bundle, changed, samples[0]).diagnostic == pytest.approx(expected, abs=1e-3)


def test_the_liver_is_found(bundle: Bundle, samples: list[Sample]) -> None:
    shown = [s for s in samples if s.truth.inner_mm2 > 6000]
    assert shown
    overlaps = []
    for sample in shown:
        answer = judged(bundle, slice_of(sample), sample)
        found = answer.on(plane_of(sample, sample.truth.liver.shape))[0] > 0.5  # type: ignore[arg-type]
        overlaps.append(2 * (found & sample.truth.liver).sum() / (found.sum() + sample.truth.liver.sum()))
    assert np.median(overlaps) > 0.85


def test_a_slice_without_images_or_of_no_extent_is_refused(bundle: Bundle, samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="no image"):
        slice_answers([MreSlice(position_mm=1.0, planes={})], {"mre_qc": bundle})
    with pytest.raises(ValueError, match="without any image"):
        channels.describe({}, 60, "GRE")
    thin = np.zeros((4, 3, 128), np.float32)
    with pytest.raises(ValueError, match="no image of shape"):
        channels.describe({"phase": (thin, (0.0, 0.0), (3.0, 3.0))}, 60, "GRE")


def test_noise_and_empty_images_give_no_diagnostic_slice(bundle: Bundle, samples: list[Sample]) -> None:
    one = slice_of(samples[0], ("magnitude", "phase"))
    rng = np.random.default_rng(0)
    noise = replace(
        one,
        magnitude=np.abs(rng.normal(size=one.magnitude.shape)).astype(np.float32),  # type: ignore[union-attr]
        phase=rng.uniform(-np.pi, np.pi, one.phase.shape).astype(np.float32),  # type: ignore[union-attr]
    )
    empty = replace(one, magnitude=one.magnitude * 0, phase=one.phase * 0)  # type: ignore[operator]
    for answer in slice_answers([noise, empty], {"mre_qc": bundle}, hz=60, sequence="GRE"):
        assert answer.diagnostic < 0.5


def test_unwrapping_gives_congruent_smooth_phase() -> None:
    down, across = np.indices((64, 80), dtype=np.float32)
    true = np.stack([0.15 * down + 8 * np.exp(-((across - 40) ** 2 + (down - 30) ** 2) / 300)] * 2).astype(np.float32)
    wrapped = np.angle(np.exp(1j * true)).astype(np.float32)
    whole = channels.unwrapped(wrapped, np.ones((64, 80), bool))
    difference = whole - true
    np.testing.assert_allclose(difference, np.median(difference), atol=1e-3)


def test_four_slices_stay_quick(bundle: Bundle, samples: list[Sample]) -> None:
    """About half a second on two quiet cores (tests/benchmarks/mre_qc.py); other tests run beside this one."""
    slices = [slice_of(s) for s in samples[:4]]
    slice_answers(slices, {"mre_qc": bundle})
    taken = []
    for _ in range(4):
        began = time.monotonic()
        slice_answers(slices, {"mre_qc": bundle}, hz=60, sequence="GRE")
        taken.append(time.monotonic() - began)
    assert min(taken) < 2.5
