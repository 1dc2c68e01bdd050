"""What a real liver CT study holds beside the two phases, and what the node must leave aside.

Unenhanced and delayed images are derived from the portal-venous HU by a fixed curve: good enough to be recognised as
what they are, not for reading.
"""

from datetime import timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage, XRayRadiationDoseSRStorage

from models.phantoms.acquisition import Scan, add_noise
from models.phantoms.ct import CtCase
from models.phantoms.dicom import Frame, SeriesStyle, phantom_uid, put_pixels, save, write_axial_series
from models.phantoms.fields import Array
from models.phantoms.vendors import Vendor

SCOUT_ROWS = 400


def _unenhanced(portal: Array) -> Array:
    """Soft tissue falls back towards 45 HU; air, fat and dense bone stay."""
    return np.interp(portal, [-2000, 20, 60, 120, 220, 320, 4000], [-2000, 20, 48, 56, 58, 320, 4000]).astype(
        np.float32
    )


def _delayed(portal: Array) -> Array:
    """Three minutes: vessels and organs approach each other."""
    return np.interp(portal, [-2000, 20, 60, 120, 220, 320, 4000], [-2000, 20, 68, 96, 122, 320, 4000]).astype(
        np.float32
    )


def _instance(base: Dataset, case: CtCase, role: str, style: SeriesStyle, number: int) -> Dataset:
    ds = Dataset()
    ds.update(base)
    ds.SeriesInstanceUID = phantom_uid("series", case.seed, role)
    ds.SOPInstanceUID = phantom_uid("instance", case.seed, role, number)
    ds.SeriesNumber, ds.InstanceNumber = style.number, number
    ds.SeriesDescription = style.description
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = style.acquired.strftime("%Y%m%d")
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = style.acquired.strftime("%H%M%S.%f")
    return ds


def _scout(
    volume: Array, base: Dataset, style: SeriesStyle, frame: Frame, vendor: Vendor, case: CtCase, folder: Path
) -> list[Path]:
    ds = _instance(base, case, "scout", style, 1)
    ds.SOPClassUID = CTImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    spacing, origin = frame.grid.spacing_mm, frame.grid.origin_mm
    attenuation = (volume + 1000).mean(axis=1) * 0.9 - 1000  # seen from the front: [slice, column]
    rows = np.interp(np.linspace(len(volume) - 1, 0, SCOUT_ROWS), np.arange(len(volume)), np.arange(len(volume)))
    picture = attenuation[np.rint(rows).astype(int)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    top = origin[0] + (len(volume) - 1) * spacing[0]
    ds.ImagePositionPatient = frame.lps((top, 0.0, origin[2]))
    ds.PixelSpacing = [f"{(len(volume) - 1) * spacing[0] / (SCOUT_ROWS - 1):.6f}", f"{spacing[2]:.6f}"]
    ds.SliceThickness = "500"
    ds.ConvolutionKernel = "T20"
    put_pixels(ds, picture, vendor)
    path = folder / "10-0001.dcm"
    save(ds, path)
    return [path]


def _coronal(
    volume: Array, base: Dataset, style: SeriesStyle, frame: Frame, vendor: Vendor, case: CtCase, folder: Path
) -> list[Path]:
    spacing, origin = frame.grid.spacing_mm, frame.grid.origin_mm
    step = max(1, round(6 / spacing[1]))
    paths = []
    for number, row in enumerate(range(step, volume.shape[1] - step, step * 2), 1):
        ds = _instance(base, case, "coronal", style, number)
        ds.SOPClassUID = CTImageStorage
        ds.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED"]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        top = origin[0] + (len(volume) - 1) * spacing[0]
        ds.ImagePositionPatient = frame.lps((top, origin[1] + row * spacing[1], origin[2]))
        ds.PixelSpacing = [f"{spacing[0]:.6f}", f"{spacing[2]:.6f}"]
        ds.SliceThickness = "6"
        ds.ConvolutionKernel = style.kernel
        ds.ContrastBolusAgent = "IOHEXOL 350"
        put_pixels(ds, volume[::-1, row - step // 2 : row + step // 2 + 1].mean(axis=1), vendor)
        path = folder / f"14-{number:04d}.dcm"
        save(ds, path)
        paths.append(path)
    return paths


def _dose_report(base: Dataset, style: SeriesStyle, vendor: Vendor, case: CtCase, folder: Path) -> list[Path]:
    """GE sends its dose page as a picture; the others send an X-Ray Radiation Dose SR."""
    ds = _instance(base, case, "dose", style, 1)
    path = folder / "15-0001.dcm"
    if vendor.manufacturer.startswith("GE"):
        ds.SOPClassUID = SecondaryCaptureImageStorage
        ds.ConversionType = "WSD"
        ds.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows = ds.Columns = 256
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.PixelData = bytes(256 * 256)
    else:
        ds.SOPClassUID = XRayRadiationDoseSRStorage
        ds.Modality = "SR"
        ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
        ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
        title = Dataset()
        title.CodeValue, title.CodingSchemeDesignator = "113701", "DCM"
        title.CodeMeaning = "X-Ray Radiation Dose Report"
        ds.ConceptNameCodeSequence = Sequence([title])
        ds.ContentSequence = Sequence([])
        del ds.KVP
    save(ds, path)
    return [path]


def write_extra_series(
    portal: Array, base: Dataset, portal_style: SeriesStyle, frame: Frame, vendor: Vendor, case: CtCase, folder: Path
) -> tuple[dict[str, str], list[Path]]:
    """Write scout, unenhanced, delayed, bone kernel, coronal reformats and dose report.

    portal: noise-free portal-venous HU [slice, row, column] on frame.grid.
    Returns the SeriesInstanceUIDs by role, and the files.
    """
    rng = np.random.default_rng([case.seed, 0xE7])
    injected = portal_style.injected
    if injected is None:
        raise ValueError("the portal-venous series must have a time of injection")

    def style(role: str, number: int, description: str, kernel: str, after_s: float, enhanced: bool) -> SeriesStyle:
        return SeriesStyle(
            role, number, description, kernel, injected + timedelta(seconds=after_s), injected if enhanced else None,
            portal_style.thickness_mm, portal_style.head_first,
        )  # fmt: skip

    scan = case.scans[1]
    sharp = Scan(scan.noise_hu * 3, 0.3, 0.0, 0.0)
    files = _scout(portal, base, style("scout", 1, "Scout", "", -150, False), frame, vendor, case, folder)
    axial = (
        ("plain", 2, vendor.plain[0], vendor.soft_kernel, -60.0, _unenhanced(portal), scan),
        ("delayed", 5, vendor.delayed[0], vendor.soft_kernel, 180.0, _delayed(portal), scan),
        ("bone", 6, f"{portal_style.description} {vendor.bone_kernel}", vendor.bone_kernel, 70.0, portal, sharp),
    )
    for order, (role, number, description, kernel, after_s, volume, quality) in enumerate(axial, 11):
        noisy = add_noise(volume, rng, quality, frame.grid)
        series_style = style(role, number, description, kernel, after_s, role != "plain")
        files += write_axial_series(noisy, base, series_style, frame, vendor, case.seed, folder, order)
    mpr = style("coronal", 7, f"{portal_style.description} COR", portal_style.kernel, 72.0, True)
    files += _coronal(portal, base, mpr, frame, vendor, case, folder)
    files += _dose_report(base, style("dose", 999, "Dose Report", "", 400.0, False), vendor, case, folder)
    roles = ("scout", "plain", "delayed", "bone", "coronal", "dose")
    return {role: phantom_uid("series", case.seed, role) for role in roles}, files
