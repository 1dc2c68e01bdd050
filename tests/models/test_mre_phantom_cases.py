"""MRE phantoms as they are used: slices for training, and exams as DICOM of four makers, read by what headers say."""

import json
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.phantoms import PHANTOMS
from models.phantoms.mre.cases import WRITERS, write_exam
from models.phantoms.mre.exam import Exam, simulate_exam
from models.phantoms.mre.readable import REASONS
from models.phantoms.mre.samples import sample_slices

SEED = 7
EVERY_ROLE = ("magnitude", "phase", "wave", "stiffness", "confidence", "overlay", "colour", "colour_wave")


@cache
def _exam(maker: str) -> Exam:
    return simulate_exam(SEED, vendor=maker, matrix=96, fault="", slices=2)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One exam per writer, without fault."""
    root = tmp_path_factory.mktemp("mre")
    for name in WRITERS:
        write_exam(_exam(name.split()[0]), root / name, enhanced=name == "Siemens XA", roles=EVERY_ROLE)
    return {name: root / name for name in WRITERS}


def _series(case: Path) -> dict[str, list[Dataset]]:
    series: dict[str, list[Dataset]] = defaultdict(list)
    for path in sorted((case / "dicom").glob("*.dcm")):
        ds = pydicom.dcmread(path)
        series[ds.SeriesInstanceUID].append(ds)
    return dict(series)


def _frames(images: list[Dataset]) -> list[tuple[float, NDArray[np.float64]]]:
    """(z of the plane, pixels with Real World Value or Rescale applied) of every image or frame of a series."""
    out = []
    for ds in images:
        if "PerFrameFunctionalGroupsSequence" in ds:
            for groups, plane in zip(ds.PerFrameFunctionalGroupsSequence, ds.pixel_array, strict=True):
                orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
                position = groups.PlanePositionSequence[0].ImagePositionPatient
                out.append((_height(orientation, position), _real(groups, plane.astype(float))))
        else:
            out.append(
                (_height(ds.ImageOrientationPatient, ds.ImagePositionPatient), _real(ds, ds.pixel_array.astype(float)))
            )
    return out


def _height(orientation: list[float], position: list[float]) -> float:
    normal = np.cross([float(v) for v in orientation[:3]], [float(v) for v in orientation[3:]])
    return float(normal @ np.array([float(v) for v in position]))


def _real(ds: Dataset, stored: NDArray[np.float64]) -> NDArray[np.float64]:
    if "RealWorldValueMappingSequence" in ds:
        item = ds.RealWorldValueMappingSequence[0]
        return stored * item.RealWorldValueSlope + item.RealWorldValueIntercept
    holder = ds.PixelValueTransformationSequence[0] if "PixelValueTransformationSequence" in ds else ds
    return stored * float(holder.get("RescaleSlope", 1)) + float(holder.get("RescaleIntercept", 0))


def _phase_images(name: str, images: list[Dataset]) -> list[tuple[float, NDArray[np.float64]]]:
    """The phase images in rad, by each maker's rule."""
    if name == "GE":  # the first half of the raw series, rad x 1000
        return [(z, p / 1000) for z, p in _frames(images)[: len(images) // 2]]
    if name == "Philips":
        return _frames([ds for ds in images if "P" in ds.ImageType and "MRE" in ds.ImageType])
    if name == "Siemens":
        return [(z, p / 4096 * np.pi) for z, p in _frames(images)]
    return _frames(images)


@pytest.mark.parametrize("name", list(WRITERS))
def test_phase_reads_back_in_radian(cases: dict[str, Path], name: str) -> None:
    truth = json.loads((cases[name] / "truth.json").read_text())
    exam = _exam(name.split()[0])
    read = _phase_images(name, _series(cases[name])[truth["series"]["phase"]])
    by_height: dict[float, list[NDArray[np.float64]]] = defaultdict(list)
    for z, image in read:
        by_height[round(z, 1)].append(image)
    assert len(by_height) == len(exam.slices)
    for item, piece in zip(truth["slices"], exam.slices, strict=True):
        images = next(v for z, v in by_height.items() if abs(z - item["slice_position_mm"]) < 0.2)
        assert len(images) == exam.protocol.offsets
        np.testing.assert_allclose(np.stack(images), piece.acquired.maps.phase, atol=np.pi / 2000)


@pytest.mark.parametrize("name", list(WRITERS))
def test_stiffness_reads_back_in_kpa(cases: dict[str, Path], name: str) -> None:
    truth = json.loads((cases[name] / "truth.json").read_text())
    exam = _exam(name.split()[0])
    factor = 0.001 if name in ("GE", "Siemens") else 1.0  # Pa as integers without a mapping
    frames = _frames(_series(cases[name])[truth["series"]["stiffness"]])
    assert len(frames) == len(exam.slices)
    for (_, image), piece in zip(frames, exam.slices, strict=True):
        np.testing.assert_allclose(image * factor, piece.acquired.maps.stiffness_kpa, atol=0.005)


def test_every_maker_says_what_its_series_are(cases: dict[str, Path]) -> None:
    def first(name: str, role: str) -> Dataset:
        truth = json.loads((cases[name] / "truth.json").read_text())
        return _series(cases[name])[truth["series"][role]][0]

    raw = first("GE", "phase")
    assert raw.private_block(0x0019, "GEMS_ACQU_01")[0x9C].value == "MR-Touch"
    assert "DERIVED" not in raw.ImageType
    assert first("GE", "overlay").PhotometricInterpretation == "RGB"
    assert {"P", "WV"} <= set(first("Siemens", "wave").ImageType)
    assert "WV" not in first("Siemens", "phase").ImageType
    assert (
        "greMR" in first("Siemens", "phase").SequenceName
        or "epseM" in first("Siemens", "phase").SequenceName
        or ("epiMR" in first("Siemens", "phase").SequenceName)
    )
    assert "ELASTO" in first("Siemens XA", "magnitude").ImageType
    assert first("Siemens XA", "phase").ComplexImageComponent == "PHASE"
    assert first("Philips", "magnitude").private_block(0x2001, "Philips Imaging DD 001")[0x18].value == 2
    assert first("Canon", "phase").ImageComments == "PhaseDiff"


def test_a_case_is_complete_and_the_same_twice(cases: dict[str, Path], tmp_path: Path) -> None:
    again = PHANTOMS["mre_qc"](SEED, tmp_path, vendor="GE", matrix=96, fault="", slices=2, roles=EVERY_ROLE)
    names = sorted(p.name for p in (cases["GE"] / "dicom").iterdir())
    assert names == sorted(p.name for p in (again / "dicom").iterdir())
    for name in names:
        assert (again / "dicom" / name).read_bytes() == (cases["GE"] / "dicom" / name).read_bytes()
    truth = json.loads((again / "truth.json").read_text())
    assert truth == json.loads((cases["GE"] / "truth.json").read_text())
    assert truth["exam_diagnostic"] is True
    assert truth["stiffness_kpa"] > 1
    heights = [item["slice_position_mm"] for item in truth["slices"]]
    assert heights == sorted(heights)
    assert {reason for item in truth["slices"] for reason in item["reasons"]} <= set(REASONS)
    others = {ds.SeriesDescription for images in _series(again).values() for ds in images[:1]}
    assert "3-plane localizer" in others
    assert all(str(ds.PatientName).startswith("PHANTOM^") for images in _series(again).values() for ds in images)


def test_slices_for_training_are_reproducible_and_plausible() -> None:
    first, second = list(sample_slices(11, 4, size=96)), list(sample_slices(11, 4, size=96))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.phase, b.phase)
        assert a.truth.reasons == b.truth.reasons
    for sample in first:
        assert sample.magnitude.shape[1:] == sample.confidence.shape == sample.stiffness_kpa.shape == (96, 96)
        assert sample.phase.shape == (sample.protocol.offsets, 96, 96)
        assert sample.colour.shape == (96, 96, 3)
        assert np.abs(sample.phase).max() <= np.pi + 1e-5
        assert sample.confidence.min() >= 0
        assert sample.confidence.max() <= 1
        assert sample.truth.diagnostic == (not sample.truth.reasons)
        for array in (sample.magnitude, sample.phase, sample.stiffness_kpa, sample.harmonic):
            assert np.isfinite(array).all()
