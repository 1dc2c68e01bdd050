"""The DICOM study of a simulated case: readable, and where the truth says."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from models.phantoms import PHANTOMS
from models.phantoms.ct import simulate_ct_case
from models.phantoms.dicom import draw_geometry, write_ct_study
from models.phantoms.vendors import VENDORS

SEED = 15


@pytest.fixture(scope="module")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PHANTOMS["ct_lesion"](SEED, tmp_path_factory.mktemp("cases"), slices=24, motion_mm=0.0, kinds=["CYST"] * 6)


def _series(folder: Path) -> dict[str, list[pydicom.Dataset]]:
    series: dict[str, list[pydicom.Dataset]] = defaultdict(list)
    for path in sorted(folder.glob("*.dcm")):
        ds = pydicom.dcmread(path)
        series[ds.SeriesInstanceUID].append(ds)
    return dict(series)


def test_two_phases_on_the_same_grid_arterial_first(case_folder: Path) -> None:
    arterial, portal = _series(case_folder / "dicom").values()
    assert len(arterial) == len(portal) == 24
    assert arterial[0].AcquisitionTime < portal[0].AcquisitionTime
    for a, b in zip(arterial, portal, strict=True):
        assert (a.Rows, a.Columns) == (512, 512)
        assert a.ImagePositionPatient == b.ImagePositionPatient
        assert a.PixelSpacing == b.PixelSpacing
        assert a.FrameOfReferenceUID == b.FrameOfReferenceUID
        assert a.StudyInstanceUID == b.StudyInstanceUID
    assert str(arterial[0].PatientName).startswith("PHANTOM^")
    assert arterial[0].PatientID.startswith("PHANTOM-")
    assert "liver" in (arterial[0].StudyDescription + arterial[0].BodyPartExamined).lower()


def _sample(portal: list[pydicom.Dataset], position_mm: list[float]) -> float:
    """Mean HU of 3 x 3 pixels around an LPS position, read only by what the headers say."""
    ds = min(portal, key=lambda d: abs(float(d.ImagePositionPatient[2]) - position_mm[2]))
    column = round((position_mm[0] - float(ds.ImagePositionPatient[0])) / float(ds.PixelSpacing[1]))
    row = round((position_mm[1] - float(ds.ImagePositionPatient[1])) / float(ds.PixelSpacing[0]))
    hu = ds.pixel_array.astype(float) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    return float(hu[row - 2 : row + 3, column - 2 : column + 3].mean())


def test_centre_of_a_lesion_leads_to_its_hu(case_folder: Path) -> None:
    truth = json.loads((case_folder / "truth.json").read_text())
    _, portal = _series(case_folder / "dicom").values()
    cysts = [item for item in truth["lesions"] if item["class"] == "CYST" and item["diameter_mm"] > 14]
    assert cysts, "no cyst of more than 14 mm among six: take another seed"
    for cyst in cysts:
        assert not cyst["malignant"]
        assert -25 <= _sample(portal, cyst["centre_mm"]) < 35


def test_liver_mask_lies_on_the_portal_venous_series(case_folder: Path) -> None:
    _, portal = _series(case_folder / "dicom").values()
    mask = sitk.ReadImage(str(case_folder / "liver.nii.gz"))
    positions = sorted(float(ds.ImagePositionPatient[2]) for ds in portal)
    assert mask.GetSize() == (512, 512, 24)
    assert mask.GetOrigin()[2] == pytest.approx(positions[0], abs=1e-2)
    assert mask.GetSpacing()[2] == pytest.approx(positions[1] - positions[0], abs=1e-3)
    assert mask.GetSpacing()[0] == pytest.approx(float(portal[0].PixelSpacing[1]), abs=1e-4)
    truth = json.loads((case_folder / "truth.json").read_text())
    for lesion in truth["lesions"]:
        if lesion["diameter_mm"] > 12:
            assert mask[mask.TransformPhysicalPointToIndex(lesion["centre_mm"])] == 1


@pytest.mark.parametrize("vendor", ["GE", "Canon", "UIH"])
def test_every_style_stores_the_same_hu(vendor: str, tmp_path: Path) -> None:
    spacing, _ = draw_geometry(SEED)
    case = simulate_ct_case(SEED, spacing_mm=spacing, shape=(3, 256, 256), noise=False)
    written = write_ct_study(case, tmp_path, vendor=vendor)
    again = write_ct_study(case, tmp_path / "again", vendor=vendor)
    ds = pydicom.dcmread(written.files[-2])
    assert ds.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert ds.RescaleIntercept == VENDORS[vendor].intercept
    hu = ds.pixel_array.astype(float) + float(ds.RescaleIntercept)
    assert hu.min() >= -1024
    assert abs(np.median(hu[hu > -500])) < 200
    assert ("ImagesInAcquisition" in ds) == VENDORS[vendor].counts_images
    assert ds.SOPInstanceUID.startswith("2.25.")
    assert pydicom.dcmread(again.files[-2]) == ds


def test_extra_series_are_what_a_real_study_holds(tmp_path: Path) -> None:
    spacing, _ = draw_geometry(SEED)
    case = simulate_ct_case(SEED, spacing_mm=spacing, shape=(4, 256, 256), noise=False)
    written = write_ct_study(case, tmp_path, vendor="Siemens", extra_series=True)
    assert set(written.series) == {
        "arterial", "portal_venous", "scout", "plain", "delayed", "bone", "coronal", "dose",
    }  # fmt: skip
    headers = _series(tmp_path)
    assert set(headers) == set(written.series.values())
    assert headers[written.series["scout"]][0].ImageType[2] == "LOCALIZER"
    assert "ContrastBolusAgent" not in headers[written.series["plain"]][0]
    assert headers[written.series["bone"]][0].ConvolutionKernel == "B70f"
    assert headers[written.series["dose"]][0].Modality == "SR"
    assert headers[written.series["coronal"]][0].ImageType[0] == "DERIVED"
