"""Synthetic CT studies and findings for the tests of encoding; written with pydicom alone."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from dicom_node.encoding.provenance import BundleUsed, Provenance
from pipelines.findings import Evaluation, Finding, Findings, Measurement, Region

STUDY = "2.25.1001"
ROLES = {"arterial": 3, "portal_venous": 4, "magnitude": 5, "bmode": 6}
CREATED = datetime(2026, 1, 15, 10, 30, 7)  # noqa: DTZ001 - as the node's clock shows it


def ct_stack(
    role: str = "portal_venous",
    slices: int = 12,
    size: int = 64,
    *,
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.8),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    reverse: bool = False,
    values: NDArray[np.int16] | None = None,
    **extra: object,
) -> list[Dataset]:
    """One CT Series in slice order; `extra` overrides elements, None removes them."""
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    stack = []
    for index in range(slices):
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = f"{STUDY}.{ROLES[role]}.{index + 1}"
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20260115"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "093000"
        dataset.AccessionNumber = "ACC1"
        dataset.Modality = "CT"
        dataset.Manufacturer = "SynthScan"
        dataset.InstitutionName = "Test Hospital"
        dataset.ReferringPhysicianName = "Ref^Doc"
        dataset.StudyDescription = "CT liver, two phases"
        dataset.SeriesDescription = role.replace("_", " ")
        dataset.ManufacturerModelName = "Phantom 1"
        dataset.PatientName = "Müller^Zoë"
        dataset.PatientID = "SYN-0001"
        dataset.IssuerOfPatientID = "HOSP_A"
        dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19600101", "F", "066Y"
        dataset.SliceThickness = spacing[0]
        dataset.KVP = 120
        dataset.PatientPosition = "HFS"
        dataset.StudyInstanceUID = STUDY
        dataset.SeriesInstanceUID = f"{STUDY}.{ROLES[role]}"
        dataset.StudyID = "S1"
        dataset.SeriesNumber, dataset.AcquisitionNumber = ROLES[role], 1
        dataset.InstanceNumber = index + 1
        along = (slices - 1 - index) if reverse else index
        position = np.asarray([-100.0, -110.0, -50.0]) + normal * spacing[0] * along
        dataset.ImagePositionPatient = [round(float(part), 4) for part in position]
        dataset.ImageOrientationPatient = [round(float(part), 6) for part in orientation]
        dataset.FrameOfReferenceUID = f"{STUDY}.9"
        dataset.PositionReferenceIndicator = ""
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows = dataset.Columns = size
        dataset.PixelSpacing = list(spacing[1:])
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.WindowCenter, dataset.WindowWidth = 80, 300
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
        if values is not None:
            dataset.PixelData = values[index].astype("<i2").tobytes()
            dataset["PixelData"].VR = "OW"
        for keyword, value in extra.items():
            if value is None:
                dataset.pop(keyword, None)
            else:
                setattr(dataset, keyword, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        stack.append(dataset)
    return stack


def mr_stack(slices: int = 4, **extra: object) -> list[Dataset]:
    """Oblique slices of MR elastography, 10 mm thick."""
    orientation = (0.984808, 0.173648, 0.0, -0.163176, 0.925417, 0.342020)
    values: dict[str, object] = {"Modality": "MR", "SOPClassUID": MRImageStorage, "KVP": None, "RescaleType": "US"}
    return ct_stack("magnitude", slices, spacing=(10, 1.5, 1.5), orientation=orientation, **{**values, **extra})


def us_clip(frames: int = 20, number: int = 1, **extra: object) -> Dataset:
    """A clip of ultrasound (one image if `frames` is 1): no position, no Frame of Reference, no Pixel Spacing."""
    values: dict[str, object] = {
        "Modality": "US",
        "SOPClassUID": UltrasoundMultiFrameImageStorage if frames > 1 else UltrasoundImageStorage,
        "SOPInstanceUID": f"{STUDY}.6.{number}",
        "InstanceNumber": number,
        "NumberOfFrames": frames if frames > 1 else None,
        "Rows": 96,
        "Columns": 128,
        "ImageType": ["ORIGINAL", "PRIMARY", "ABDOMINAL"],
    }
    gone = """ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID PositionReferenceIndicator PixelSpacing
    SliceThickness KVP RescaleIntercept RescaleSlope RescaleType"""
    (clip,) = ct_stack("bmode", 1, **{**values, **dict.fromkeys(gone.split()), **extra})
    return clip


def through_bytes(dataset: Dataset, *, implicit: bool = False) -> Dataset:
    """Write and read again, so that elements are raw as those of a received file."""
    buffer = BytesIO()
    if implicit:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    dataset.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()), stop_before_pixels=True)


def ball(
    shape: tuple[int, int, int], centre: Sequence[float], radius_mm: float, spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """Voxels whose centres lie within `radius_mm` of a centre given in indices [slice, row, column]."""
    offsets = [(np.arange(size) - middle) * step for size, middle, step in zip(shape, centre, spacing, strict=True)]
    z, y, x = np.ix_(*offsets)
    return np.asarray(z**2 + y**2 + x**2 <= radius_mm**2)


def lesion(name: str, mask: NDArray[np.bool_], voxel_mm3: float, percent: float, kind: str) -> Finding:
    """A finding as ct_lesion answers it."""
    malignancy = "malignant" if percent >= 50 else "benign"
    return Finding(
        tracking_id=name,
        concept="lesion",
        site="liver",
        mask=mask,
        measurements=(
            Measurement("long_axis", 23.14, "mm"),
            Measurement("volume", float(mask.sum()) * voxel_mm3, "mm3"),
            Measurement("malignant_probability", percent, "%"),
            Measurement("certainty", 93.2, "%"),
        ),
        evaluations=(Evaluation("malignancy", malignancy), Evaluation("lesion_class", kind)),
    )


def liver_findings(
    shape: tuple[int, int, int] = (12, 64, 64),
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.8),
    lesions: int = 2,
    liver: bool = True,
    **extra: object,
) -> Findings:
    """A round liver with small lesions in it."""
    voxel_mm3 = float(np.prod(spacing))
    middle = [(size - 1) / 2 for size in shape]
    extent = min(size * step for size, step in zip(shape, spacing, strict=True))
    organ = ball(shape, middle, 0.45 * extent, spacing)
    kinds = [("HCC", 87.4), ("CYST", 3.2), ("MET", 99.6), ("HEM", 41.0), ("FNH", 0.4)]
    found = []
    for index in range(lesions):
        angle = 2.4 * index
        reach = 0.22 * extent
        centre = (
            middle[0] + 0.12 * extent * np.cos(1.7 * index) / spacing[0],
            middle[1] + reach * np.sin(angle) / spacing[1],
            middle[2] + reach * np.cos(angle) / spacing[2],
        )
        kind, percent = kinds[index % len(kinds)]
        found.append(lesion(f"Lesion {index + 1}", ball(shape, centre, (0.07 + 0.01 * (index % 3)) * extent, spacing),
                            voxel_mm3, percent, kind))  # fmt: skip
    numbers = [Measurement("lesion_count", lesions, "{lesions}")] if lesions else []
    numbers += [Measurement("liver_volume", float(organ.sum()) * voxel_mm3 / 1000, "mL")] if liver else []
    answer = {
        "regions": (Region("Liver", "liver", organ),) if liver else (),
        "measurements": tuple(numbers),
        "evaluations": (Evaluation("lesion", "present" if lesions else "absent"),),
        "headline": _headline(found),
        **extra,
    }
    return Findings(role="portal_venous", findings=tuple(found), **answer)


def _headline(found: list[Finding]) -> str:
    called = Counter(item.value for one in found for item in one.evaluations if item.concept == "malignancy")
    parts = ", ".join(f"{number} {value}" for value, number in sorted(called.items(), reverse=True))
    return f"{len(found)} lesion{'s' if len(found) > 1 else ''}: {parts}" if found else "No lesion found"


def provenance(**changes: object) -> Provenance:
    """Provenance of a made-up run."""
    values: dict[str, object] = {
        "node_id": "node-7",
        "study_instance_uid": STUDY,
        "pipeline": "ct_lesion",
        "version": "0.1.0",
        "title": "AI CT liver lesions",
        "bundles": (BundleUsed("ct_liver", "0.1.0", "ab" * 32), BundleUsed("ct_lesion", "0.1.0", "cd" * 32)),
        "fingerprint": "f" * 64,
        "trained_on": "simulated CT of the liver",
        "created_at": CREATED,
    }
    return Provenance(**{**values, **changes})
