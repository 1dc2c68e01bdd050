"""Enhancement measured on drawn abdomens with known HU, through real DICOM files."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.recognition.ct_pixels import Enhancement, earlier_of, judge, measure_enhancement


def abdomen(
    aorta: float,
    liver: float,
    *,
    bone: float = 250.0,
    touching: bool = False,
    mirrored: bool = False,
    noise: float = 12.0,
) -> np.ndarray:
    """One axial slice [row, column] HU, 1 mm pixels, patient's right at the left."""
    y, x = np.mgrid[0:300, 0:380].astype(np.float32)

    def disc(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1

    hu = np.full(x.shape, -1000.0, np.float32)
    hu[disc(190, 150, 170, 120)] = -100
    hu[disc(190, 150, 165, 115) & ~disc(190, 150, 150, 100)] = 55
    hu[disc(115, 130, 70, 75)] = liver
    hu[disc(300, 160, 30, 40)] = 110
    hu[disc(195, 205, 20, 17)] = bone
    hu[disc(195, 235, 8, 12)] = 35
    hu[disc(195, 250, 7, 7)] = 600
    hu[disc(208, 180 if touching else 172, 12, 12)] = aorta
    if mirrored:
        hu = hu[:, ::-1]
    return hu + np.random.default_rng(3).normal(0, noise, hu.shape).astype(np.float32)


def write(
    folder: Path, hu: np.ndarray, slices: int = 8, orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
) -> list[Path]:
    paths = []
    for n in range(slices):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.{n}"
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
        )
        ds.Rows, ds.Columns = hu.shape
        ds.PixelSpacing, ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 1], list(orientation), [0, 0, 3 * n]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored = 1, "MONOCHROME2", 16, 12
        ds.HighBit, ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 11, 0, 1, -1024
        ds.PixelData = np.clip(np.round(hu + 1024), 0, 4095).astype("<u2").tobytes()
        paths.append(folder / f"{n}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


CASES = {"arterial": (320.0, 65.0), "portal_venous": (150.0, 110.0), "plain": (42.0, 56.0)}


@pytest.mark.parametrize("phase", CASES)
@pytest.mark.parametrize("touching", [False, True], ids=["free", "touching"])
def test_phases_of_a_drawn_abdomen(tmp_path: Path, phase: str, touching: bool) -> None:
    aorta, liver = CASES[phase]
    found = measure_enhancement(write(tmp_path, abdomen(aorta, liver, touching=touching)))
    assert found is not None
    assert found.organ_hu == pytest.approx(liver, abs=6)
    # Where aorta and vertebra touch, nothing may be said; nothing wrong may be said ever.
    assert found.phase in ((phase,) if not touching else (phase, None))
    if not touching:
        assert found.vessel_hu == pytest.approx(aorta, abs=10)


def test_the_patients_right_is_found_in_a_mirrored_picture(tmp_path: Path) -> None:
    paths = write(tmp_path, abdomen(320, 65, mirrored=True), orientation=(-1, 0, 0, 0, 1, 0))
    found = measure_enhancement(paths)
    assert found is not None
    assert found.organ_hu == pytest.approx(65, abs=6)


def test_phantoms_without_bones_or_vessels_say_nothing(tmp_path: Path) -> None:
    hu = np.full((256, 256), -1000.0, np.float32)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    hu[x**2 + (1.3 * y) ** 2 < 0.8] = 50
    found = measure_enhancement(write(tmp_path, hu))
    assert found is not None
    assert found.phase is None


def test_unreadable_files_and_empty_pictures_do_not_raise(tmp_path: Path) -> None:
    junk = tmp_path / "junk.dcm"
    junk.write_bytes(b"\0" * 500)
    assert measure_enhancement([]) is None
    assert measure_enhancement([junk, tmp_path / "absent.dcm"]) is None
    assert measure_enhancement(write(tmp_path, np.full((64, 64), -1000.0, np.float32))) is None


def test_the_earlier_of_two_is_the_one_with_the_darker_liver_and_the_brighter_vessel() -> None:
    arterial, portal = judge(320, 65, 10, 5), judge(150, 110, 10, 5)
    assert (earlier_of(arterial, portal), earlier_of(portal, arterial)) == (0, 1)
    assert earlier_of(judge(None, 60, 10, 5), judge(None, 90, 10, 5)) == 0
    assert earlier_of(judge(None, 60, 10, 5), judge(None, 66, 10, 5)) is None
    assert earlier_of(judge(None, 60, 10, 5), judge(None, 12, 10, 5)) is None  # fluid is no liver
    assert earlier_of(Enhancement(None, None, 10, 5, None, ""), portal) is None


def test_a_weak_vessel_over_a_misjudged_organ_is_not_called_arterial() -> None:
    assert judge(154, 35, 10, 5).phase is None
