"""Files of elastography become radians, kPa and confidence, each on its own slice and phase offset."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import elastography_exams as exams
import numpy as np
import pytest
from elastography_exams import EXAMS, FIRST_MM, OFFSETS, SLICES, SPACING_MM, canon, ge, philips, siemens
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dicom_node.decoding.decoded import Decoded
from dicom_node.decoding.elastography import mre_input
from dicom_node.decoding.elastography_scales import Measured, phase_radians, stiffness_kpa
from dicom_node.decoding.frames import Frame
from dicom_node.encoding.sources import source_stack
from dicom_node.errors import UnreadableSeries
from dicom_node.folder import inputs_from_folder
from pipelines.catalogue import MRE_ANY_OF, MRE_ROLES
from pipelines.inputs import MreInput
from pipelines.pipeline import Pipeline

PIPELINE = Pipeline("mre_qc", "0", "AI MRE", "MR", MRE_ROLES, (), "cpu", "none", MRE_ANY_OF, answers_per_slice=True)


@pytest.fixture(scope="module")
def ge_paths(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Sequence[Path]]:
    return bound(ge(), tmp_path_factory.mktemp("ge"))


@pytest.fixture(scope="module")
def siemens_paths(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Sequence[Path]]:
    return bound(siemens(), tmp_path_factory.mktemp("siemens"))


def bound(datasets: Sequence[Any], folder: Path) -> Mapping[str, Sequence[Path]]:
    """Role -> files, by the way of `run`: written, recognised, bound."""
    folder.mkdir(exist_ok=True)
    exams.written(datasets, folder)
    inputs = inputs_from_folder(folder, PIPELINE)
    assert inputs.missing is None
    return inputs.paths


def decoded(datasets: Sequence[Any], folder: Path) -> Decoded:
    return mre_input(bound(datasets, folder))


def values(datasets: Sequence[Any], folder: Path) -> MreInput:
    value: MreInput = decoded(datasets, folder).value
    return value


@pytest.mark.parametrize("vendor", EXAMS)
def test_every_vendors_values_are_read(vendor: str, tmp_path: Path) -> None:
    exam = values(EXAMS[vendor](), tmp_path)
    assert exam.vendor == vendor.split()[0]
    assert [one.position_mm for one in exam.slices] == [FIRST_MM + SPACING_MM * n for n in range(SLICES)]
    assert (exam.slice_spacing_mm, exam.slice_thickness_mm, exam.phase_offsets) == (SPACING_MM, 10.0, OFFSETS)
    assert exam.motion_direction == "slice"
    middle = (exams.ROWS // 2, exams.COLUMNS // 2)
    for place, one in enumerate(exam.slices):
        assert one.phase is not None
        assert one.magnitude is not None
        for offset in range(OFFSETS):
            assert one.phase[(offset, *middle)] == pytest.approx(exams.phase_radians(place, offset), abs=0.002)
        for offset in range(len(one.magnitude)):
            assert one.magnitude[(offset, *middle)] == exams.magnitude_value(place, offset)
        if one.elastogram is not None:
            rows, columns = one.elastogram.shape
            value = one.elastogram[rows // 2, columns // 2]
            assert value == pytest.approx(exams.stiffness_kpa(place), abs=0.002)
        if one.confidence is not None:
            assert one.confidence[middle] == pytest.approx(exams.confidence(place), abs=0.001)
        if one.colour is not None:
            assert one.colour[middle].tolist() == [10, 20 + place, 30]
        assert one.phase.dtype == one.magnitude.dtype == np.float32
    expected = {"GE": 6, "Siemens": 6, "Siemens XA": 6, "Siemens enhanced": 2}
    assert len(exam.roles) == expected.get(vendor, 3)


def test_headers_of_the_slices_carry_results(tmp_path: Path) -> None:
    for vendor in ("Philips", "Siemens enhanced"):
        study = decoded(EXAMS[vendor](), tmp_path / vendor)
        for role in study.value.roles:
            stack = source_stack(study.sources[role], study.frame_numbers.get(role))
            of_role = study.value.of_role(role)
            assert [float(s.point[2]) for s in stack.slices] == [one.position_mm for one in of_role]
            assert stack.shape == (SLICES, *of_role[0].planes[role].shape)
            assert "PixelData" not in stack.header


def test_frequencies_sequence_and_field(ge_paths: Mapping[str, Sequence[Path]], tmp_path: Path) -> None:
    exam = mre_input(ge_paths).value
    assert (exam.frequency_hz, exam.driver_frequency_hz, exam.sequence) == (60.0, None, "GRE")
    assert (exam.echo_time_ms, exam.repetition_time_ms, exam.field_strength_t) == (20.2, 50.0, 1.5)
    datasets = [ds for ds in siemens() if ds.SeriesNumber == 4]
    for ds in datasets:
        ds.ImageComments = "driver 50 Hz"
    exam = values(datasets, tmp_path / "siemens")
    assert (exam.frequency_hz, exam.driver_frequency_hz, exam.sequence) == (None, 50.0, "SE-EPI")


def test_a_finer_map_keeps_its_own_grid(tmp_path: Path) -> None:
    one = values(philips(), tmp_path).slices[0]
    raw, fine = one.planes["phase"], one.planes["elastogram"]
    assert (raw.shape, raw.pixel_spacing_mm) == ((exams.ROWS, exams.COLUMNS), (1.5, 1.6))
    assert (fine.shape, fine.pixel_spacing_mm) == ((2 * exams.ROWS, 2 * exams.COLUMNS), (0.75, 0.8))
    assert fine.origin_mm[0] == pytest.approx(raw.origin_mm[0] - 0.4)


def test_the_order_of_the_files_does_not_matter(siemens_paths: Mapping[str, Sequence[Path]]) -> None:
    paths = siemens_paths
    shuffled = {role: random.Random(3).sample(list(found), len(found)) for role, found in paths.items()}
    first, second = mre_input(paths).value, mre_input(shuffled).value
    for a, b in zip(first.slices, second.slices, strict=True):
        for role in first.roles:
            assert np.array_equal(getattr(a, role), getattr(b, role))


@pytest.mark.parametrize("role", ["magnitude", "phase", "wave", "elastogram", "confidence", "colour"])
def test_any_one_role_is_enough_to_read(role: str, ge_paths: Mapping[str, Sequence[Path]]) -> None:
    exam = mre_input({role: ge_paths[role]}).value
    assert exam.roles == (role,)
    assert len(exam.slices) == SLICES


def test_a_slice_without_all_its_offsets_is_left_out_with_a_note(tmp_path: Path) -> None:
    lost = [ds for ds in siemens() if ds.SeriesNumber < 6 and not (ds.SeriesNumber == 5 and ds.InstanceNumber == 6)]
    exam = values(lost, tmp_path)
    assert [one.phase is None for one in exam.slices] == [False, True, False, False]
    assert exam.slices[1].magnitude is not None
    assert any("phase: 3 of 4 phase offsets at -20.0 mm" in note for note in exam.notes)


def test_two_offsets_are_no_phase(tmp_path: Path) -> None:
    exams.written(canon(offsets=2), tmp_path)
    paths = inputs_from_folder(tmp_path, PIPELINE).paths
    exam = mre_input(paths).value
    assert "phase" not in exam.roles
    with pytest.raises(UnreadableSeries, match="3 phase offsets are the least"):
        mre_input({"phase": paths["phase"]})


def test_signed_compressed_and_other_files(tmp_path: Path) -> None:
    datasets = [ds for ds in ge() if ds.SeriesNumber in (4, 41, 43)]
    plain = values(datasets, tmp_path / "plain")
    for ds in datasets:
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.compress("1.2.840.10008.1.2.5")
    packed = values(datasets, tmp_path / "packed")
    for a, b in zip(plain.slices, packed.slices, strict=True):
        for role in plain.roles:
            assert np.array_equal(getattr(a, role), getattr(b, role))


# ------------------------------------------------------------------ refusals


def spoilt(change: Callable[[Any], None], which: Callable[[Any], bool]) -> list[Any]:
    datasets = [ds for ds in siemens() if ds.SeriesNumber == 5]
    change(next(ds for ds in datasets if which(ds)))
    return datasets


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:20]), r"Pixel Data \(7FE0,0010\)"),
        (lambda ds: delattr(ds, "PixelData"), "no Pixel Data"),
        (lambda ds: setattr(ds, "RescaleSlope", 0), r"Rescale Slope \(0028,1053\)"),
    ],
)  # fmt: skip
def test_damaged_images_are_named(change: Callable[[Any], None], told: str, tmp_path: Path) -> None:
    datasets = spoilt(change, lambda ds: ds.SeriesNumber == 5)
    with pytest.raises(UnreadableSeries, match=told) as raised:
        decoded(datasets, tmp_path)
    assert "Instance 1.2.826" in str(raised.value)
    assert "A^B" not in str(raised.value)


def test_half_of_a_ge_series_is_refused_and_not_read_as_the_other_half(tmp_path: Path) -> None:
    """64 images of which the first 32 came look like a whole series; their values tell that they are not."""
    datasets = [ds for ds in ge(offsets=8) if ds.SeriesNumber == 4 and ds.InstanceNumber <= 32]
    for n, ds in enumerate(sorted(datasets, key=lambda ds: (ds.InstanceNumber - 1) % 8), start=1):
        ds.InstanceNumber = n  # ordered by offset, then slice: as a whole series of 4 offsets would be
    with pytest.raises(UnreadableSeries, match="images of the Series are probably missing"):
        decoded(datasets, tmp_path)


def test_images_of_two_places_are_refused(siemens_paths: Mapping[str, Sequence[Path]], tmp_path: Path) -> None:
    turned = [ds for ds in siemens(series=20) if ds.SeriesNumber == 21]
    for ds in turned:
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
    with pytest.raises(UnreadableSeries, match=r"Image Orientation \(Patient\) \(0020,0037\)"):
        mre_input({"magnitude": siemens_paths["magnitude"], "phase": exams.written(turned, tmp_path)})


def test_grey_images_are_no_colour(ge_paths: Mapping[str, Sequence[Path]]) -> None:
    with pytest.raises(UnreadableSeries, match="a grey image"):
        mre_input({"colour": ge_paths["elastogram"]})
    with pytest.raises(UnreadableSeries, match="a colour image"):
        mre_input({"elastogram": ge_paths["colour"]})


def test_no_file_is_refused() -> None:
    with pytest.raises(UnreadableSeries, match="no images"):
        mre_input({"phase": []})


# ------------------------------------------------------------------ scales


def scaled(stored: Any, *, slope: float = 1.0, intercept: float = 0.0, unit: str = "", bits: int = 16) -> Measured:
    import pydicom

    header = pydicom.Dataset()
    header.SOPInstanceUID, header.BitsStored = "1.2.3", bits
    zero = np.zeros(3)
    frame = Frame(Path(), header, 0, zero, zero, zero, (1.0, 1.0), slope, intercept, None)
    array = np.asarray(stored)
    return Measured(
        (array * slope + intercept).astype(np.float32), array, unit, (slope, intercept) != (1.0, 0.0), frame
    )


@given(
    truth=arrays(np.float64, (4, 5), elements=st.floats(-3.1, 3.1)),
    scale=st.sampled_from(["ge", "siemens", "siemens rescaled", "philips", "philips 2048", "canon rad", "16 bit"]),
)
def test_phase_comes_back_from_every_scale(truth: Any, scale: str) -> None:
    truth[0, 0], truth[0, 1] = -3.1, 3.1  # noise outside the body reaches all of a turn
    twelve = np.round(truth / math.pi * 2048 + 2048).astype(np.int32)
    image, vendor = {
        "ge": (scaled(np.round(1000 * truth)), "GE"),
        "siemens": (scaled(twelve, bits=12), "Siemens"),
        "siemens rescaled": (scaled(twelve, slope=2, intercept=-4096, bits=12), "Siemens"),
        "philips": (scaled(twelve, slope=1.534, intercept=-3142, bits=12), "Philips"),
        "philips 2048": (scaled(twelve, intercept=-2048, bits=12), "Philips"),
        "canon rad": (scaled(twelve, slope=math.pi / 2048, intercept=-math.pi, unit="rad"), "Canon"),
        "16 bit": (scaled(np.round((truth / math.pi + 1) * 32768)), ""),
    }[scale]
    (phase,), _ = phase_radians([image], vendor)
    assert np.allclose(phase, truth, atol=0.002)


@pytest.mark.parametrize(
    ("stored", "slope", "unit", "vendor", "expected", "told"),
    [
        (2500, 1.0, "", "GE", 2.5, "Pa, as GE writes it"), (2500, 1.0, "", "Siemens", 2.5, "Pa"),
        (2500, 0.001, "", "Philips", 2.5, "kPa"), (2500, 1.0, "pa", "Philips", 2.5, "as the header says"),
        (250, 0.01, "kpa", "Canon", 2.5, "as the header says"), (3, 1.0, "", "", 3.0, "kPa"),
    ],
)  # fmt: skip
def test_stiffness_is_kpa(stored: int, slope: float, unit: str, vendor: str, expected: float, told: str) -> None:
    image = scaled(np.full((4, 4), stored), slope=slope, unit=unit)
    (kpa,), note = stiffness_kpa([image], vendor)
    assert kpa[0, 0] == pytest.approx(expected)
    assert told in note


def test_stiffness_of_no_known_scale_is_refused() -> None:
    with pytest.raises(UnreadableSeries, match=r"Real World Value Mapping\s+\(0040,9096\)"):
        stiffness_kpa([scaled(np.full((4, 4), 120))], "Canon")
