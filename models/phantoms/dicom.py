"""A simulated case as a DICOM study, and as a case folder with its truth."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its users know
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from models.phantoms.acquisition import Scan, add_noise, blur
from models.phantoms.ct import CtCase, simulate_ct_case
from models.phantoms.fields import Array, Grid, Triple
from models.phantoms.vendors import VENDORS, Vendor

MATRIX = 512
SAGITTAL_OFFSET_MM = 20.0


def phantom_uid(*parts: object) -> str:
    """A UID below 2.25 (PS3.5 B.2) that is the same for the same parts."""
    digest = hashlib.sha256("/".join(str(p) for p in parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


@dataclass(frozen=True)
class Frame:
    """Where the 512 x 512 images of a study lie: the case's grid, moved to the scanner's coordinates."""

    grid: Grid  # z, y, x, at full in-plane resolution
    offset_mm: Triple  # z, y, x, added to the patient's coordinates

    def lps(self, position_mm: Triple) -> list[float]:
        """(z, y, x) of the patient -> [x, y, z] of the DICOM patient coordinate system, mm."""
        return [round(float(position_mm[i] + self.offset_mm[i]), 4) for i in (2, 1, 0)]


@dataclass(frozen=True)
class Written:
    """What `write_ct_study` wrote."""

    study_instance_uid: str
    series: dict[str, str]  # "arterial", "portal_venous", ... -> SeriesInstanceUID
    files: tuple[Path, ...]
    frame: Frame


def _double(volume: Array) -> Array:
    """Twice the rows and columns by linear interpolation; the voxels keep the field of view."""
    for axis in (1, 2):
        before = np.concatenate([volume.take([0], axis), volume.take(range(volume.shape[axis] - 1), axis)], axis)
        after = np.concatenate([volume.take(range(1, volume.shape[axis]), axis), volume.take([-1], axis)], axis)
        pair = np.stack([0.75 * volume + 0.25 * before, 0.75 * volume + 0.25 * after], axis + 1)
        shape = list(volume.shape)
        shape[axis] *= 2
        volume = pair.reshape(shape).astype(np.float32)
    return volume


def _base(case: CtCase, vendor: Vendor, rng: np.random.Generator, start: datetime) -> Dataset:
    """The patient, study and equipment modules."""
    ds = Dataset()
    ds.SpecificCharacterSet = vendor.character_set
    ds.PatientName = f"PHANTOM^CT{case.seed:06d}"
    ds.PatientID = f"PHANTOM-CT-{case.seed:06d}"
    ds.PatientSex = str(rng.choice(["M", "F"]))
    age = int(rng.integers(25, 86))
    ds.PatientAge = f"{age:03d}Y"
    ds.PatientBirthDate = f"{start.year - age:04d}0101"
    ds.StudyInstanceUID = phantom_uid("study", case.seed)
    ds.StudyID = str(case.seed % 100000)
    ds.AccessionNumber = f"PH{case.seed:08d}"
    ds.StudyDate, ds.StudyTime = start.strftime("%Y%m%d"), start.strftime("%H%M%S.000000")
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = str(rng.choice(vendor.study))
    ds.Manufacturer = vendor.manufacturer
    ds.ManufacturerModelName = str(rng.choice(vendor.models))
    ds.SoftwareVersions = vendor.software
    ds.StationName = "CT1"
    ds.InstitutionName = "Phantom Hospital"
    ds.Modality = "CT"
    ds.BodyPartExamined = str(rng.choice(["ABDOMEN", "LIVER"]))
    ds.ProtocolName = vendor.protocol
    ds.PatientPosition = "FFS" if rng.random() < 0.15 else "HFS"
    ds.FrameOfReferenceUID = phantom_uid("frame", case.seed)
    ds.PositionReferenceIndicator = ""
    ds.KVP = str(rng.choice([100, 120, 120]))
    return ds


def save(ds: Dataset, path: Path) -> None:
    """Write a Dataset as a DICOM file, Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), ds, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(path, enforce_file_format=True)


def put_pixels(ds: Dataset, hu: NDArray[np.floating], vendor: Vendor) -> None:
    """Store HU [row, column] the vendor's way; air and metal are clipped to what 12 bits hold."""
    stored = np.clip(np.rint(hu), -1024, 3071) - vendor.intercept
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated = 16
    ds.BitsStored, ds.HighBit = (16, 15) if vendor.signed else (12, 11)
    ds.PixelRepresentation = int(vendor.signed)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(vendor.intercept), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "60", "350"
    ds.PixelData = stored.astype("<i2" if vendor.signed else "<u2").tobytes()


@dataclass(frozen=True)
class SeriesStyle:
    """What distinguishes one series of the study."""

    role: str
    number: int
    description: str
    kernel: str
    acquired: datetime
    injected: datetime | None  # start of the contrast injection; None: unenhanced
    thickness_mm: float
    head_first: bool  # InstanceNumber 1 is the image nearest to the head
    phase: str = ""  # Contrast/Bolus Agent Phase


def write_axial_series(
    volume: Array, base: Dataset, style: SeriesStyle, frame: Frame, vendor: Vendor, seed: int, folder: Path, order: int
) -> list[Path]:
    """Write HU [slice, row, column] as one CT image per slice; returns the files in the order of InstanceNumber."""
    uid = phantom_uid("series", seed, style.role)
    count = len(volume)
    spacing = frame.grid.spacing_mm
    paths = []
    for number in range(1, count + 1):
        index = count - number if style.head_first else number - 1
        z = frame.grid.origin_mm[0] + index * spacing[0]
        ds = Dataset()
        ds.update(base)
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = phantom_uid("instance", seed, style.role, number)
        ds.SeriesInstanceUID = uid
        ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = style.number, number, style.number
        ds.SeriesDescription = style.description
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        moment = style.acquired + timedelta(seconds=6.0 * number / count)
        ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = moment.strftime("%Y%m%d")
        ds.SeriesTime = style.acquired.strftime("%H%M%S.%f")
        ds.AcquisitionTime = moment.strftime("%H%M%S.%f")
        ds.ContentTime = (moment + timedelta(seconds=20)).strftime("%H%M%S.%f")
        ds.ConvolutionKernel = style.kernel
        ds.SliceThickness = f"{style.thickness_mm:g}"
        if vendor.counts_images:
            ds.ImagesInAcquisition = count
        if style.injected is not None:
            ds.ContrastBolusAgent = "IOHEXOL 350"
            if vendor.states_injection:
                ds.ContrastBolusStartTime = style.injected.strftime("%H%M%S.%f")
            if vendor.states_phase and style.phase:
                ds.add_new(0x00189344, "CS", style.phase)
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = frame.lps((z, frame.grid.origin_mm[1], frame.grid.origin_mm[2]))
        ds.SliceLocation = f"{ds.ImagePositionPatient[2]:.3f}"
        ds.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[2]:.6f}"]
        put_pixels(ds, volume[index], vendor)
        path = folder / f"{order:02d}-{number:04d}.dcm"
        save(ds, path)
        paths.append(path)
    return paths


def write_ct_study(case: CtCase, folder: Path, *, vendor: str | None = None, extra_series: bool = False) -> Written:
    """Write the two phases of a noise-free case as a DICOM study with 512 x 512 images.

    case: made by simulate_ct_case(..., noise=False) with 256 x 256 voxels per slice; rows and columns are doubled, then
    blur and noise are added at full resolution. Everything is drawn from case.seed. vendor: a key of VENDORS; None
    draws one. The arterial files come first, then the portal-venous ones. extra_series adds what a real study also
    holds and the node must leave aside: scout, unenhanced, delayed, bone kernel, coronal reformats, dose report.
    """
    if case.portal_venous.shape[1:] != (MATRIX // 2, MATRIX // 2):
        raise ValueError(f"case must have {MATRIX // 2} x {MATRIX // 2} voxels per slice, got {case.grid.shape}")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([case.seed, 0xD1])
    style = VENDORS[vendor if vendor is not None else str(rng.choice(list(VENDORS)))]
    n = case.grid.shape[0]
    pitch = case.grid.spacing_mm[1] / 2
    grid = Grid.centred((n, MATRIX, MATRIX), (case.grid.spacing_mm[0], pitch, pitch))
    offset = float(rng.uniform(-900, 400)), float(rng.uniform(-40, 40)), float(rng.uniform(-15, 15))
    frame = Frame(grid, offset)
    start = datetime(2025, 1, 1, 8) + timedelta(minutes=int(rng.integers(0, 500_000)))  # noqa: DTZ001 - DICOM local time
    base = _base(case, style, rng, start)
    injected = start + timedelta(seconds=float(rng.uniform(200, 400)))
    arterial_delay = float(rng.uniform(24, 31) if case.contrast.early > 0.45 else rng.uniform(33, 41))
    moments = {
        "arterial": injected + timedelta(seconds=arterial_delay),
        "portal_venous": injected + timedelta(seconds=float(rng.uniform(63, 80))),
    }
    thickness = case.grid.spacing_mm[0] * (1.0 if rng.random() < 0.8 else 1.25)
    head_first = bool(rng.random() < 0.7)
    styles = {
        "arterial": SeriesStyle(
            "arterial", 3, str(rng.choice(style.arterial)), style.soft_kernel, moments["arterial"], injected,
            thickness, head_first, "ARTERIAL",
        ),
        "portal_venous": SeriesStyle(
            "portal_venous", 4, str(rng.choice(style.portal_venous)), style.soft_kernel, moments["portal_venous"],
            injected, thickness, head_first, "PORTAL_VENOUS",
        ),
    }  # fmt: skip
    ideal = {"arterial": _double(case.arterial), "portal_venous": _double(case.portal_venous)}
    files: list[Path] = []
    for order, (role, scan) in enumerate(zip(styles, case.scans, strict=True), 1):
        volume = add_noise(blur(ideal[role], scan, grid), rng, scan, grid)
        files += write_axial_series(volume, base, styles[role], frame, style, case.seed, folder, order)
    series = {role: phantom_uid("series", case.seed, role) for role in styles}
    if extra_series:
        from models.phantoms.dicom_extras import write_extra_series

        extra, paths = write_extra_series(
            ideal["portal_venous"], base, styles["portal_venous"], frame, style, case, folder
        )
        series |= extra
        files += paths
    return Written(base.StudyInstanceUID, series, tuple(files), frame)


def draw_geometry(seed: int, slices: int | None = None) -> tuple[Triple, tuple[int, int, int]]:
    """Spacing and shape of the coarse grid of a case that is to become a 512 x 512 study."""
    rng = np.random.default_rng([seed, 0x6E])
    pitch = float(rng.uniform(0.68, 0.84)) * 2
    thickness = float(rng.choice([2.5, 3.0, 5.0], p=[0.4, 0.4, 0.2]))
    cover = float(rng.uniform(210, 250))
    count = slices if slices is not None else round(cover / thickness)
    if slices is not None:
        thickness = round(cover / slices, 2)
    return (thickness, pitch, pitch), (count, MATRIX // 2, MATRIX // 2)


def case_name(seed: int) -> str:
    """Folder name of a case."""
    return f"ct_lesion-{seed:06d}"


def _truth(case: CtCase, frame: Frame) -> dict[str, Any]:
    return {
        "lesions": [
            {
                "centre_mm": frame.lps(lesion.centre_mm),
                "diameter_mm": round(lesion.diameter_mm, 2),
                "class": lesion.kind,
                "malignant": lesion.malignant,
            }
            for lesion in case.lesions
        ],
        "liver_mask": "liver.nii.gz",
        "phantom": {
            "seed": case.seed,
            "richness": round(case.richness, 3),
            "early_arterial": case.contrast.early > 0.45,
        },
    }


def write_liver_mask(case: CtCase, frame: Frame, path: Path) -> None:
    """Write the liver with its lesions as NIfTI on the grid of the portal-venous series."""
    mask = np.repeat(np.repeat(case.liver, 2, 1), 2, 2).astype(np.uint8)
    image = sitk.GetImageFromArray(mask)
    spacing = frame.grid.spacing_mm
    image.SetSpacing((spacing[2], spacing[1], spacing[0]))
    image.SetOrigin(frame.lps(frame.grid.origin_mm))
    sitk.WriteImage(image, str(path), useCompression=True)


def write_case(
    seed: int,
    out_dir: Path | str,
    *,
    extras: bool = False,
    vendor: str | None = None,
    slices: int | None = None,
    motion_mm: float = 10.0,
    kinds: Sequence[str] | None = None,
) -> Path:
    """Simulate one patient and write the case folder `ct_lesion-<seed>`: dicom/*.dcm, truth.json, liver.nii.gz.

    Positions in truth.json are mm in DICOM patient coordinates (LPS) of the portal-venous series. slices: images per
    phase (50-100 when None); kinds: classes of the lesions; vendor, extras: see write_ct_study. Returns the folder.
    The same arguments write the same pixels, UIDs and truth.
    """
    folder = Path(out_dir) / case_name(seed)
    spacing, shape = draw_geometry(seed, slices)
    case = simulate_ct_case(seed, spacing_mm=spacing, shape=shape, motion_mm=motion_mm, noise=False, kinds=kinds)
    written = write_ct_study(case, folder / "dicom", vendor=vendor, extra_series=extras)
    write_liver_mask(case, written.frame, folder / "liver.nii.gz")
    (folder / "truth.json").write_text(json.dumps(_truth(case, written.frame), indent=1), encoding="utf-8")
    return folder


__all__ = ["Frame", "Scan", "Written", "draw_geometry", "phantom_uid", "write_case", "write_ct_study"]
