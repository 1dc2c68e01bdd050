"""Small DICOM objects for tests of the network and the index; their pixels are never looked at."""

import itertools
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicom_node.dimse.part10 import file_head

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

_numbers = itertools.count(1)


def new_uid() -> str:
    """A UID that no other call in this process gives."""
    return f"2.25.77{next(_numbers):08d}"


def dataset_bytes(sop_instance_uid: str, study: str = "2.25.1", series: str = "2.25.2", **elements: object) -> bytes:
    """A CT slice of 4 x 4 pixels, Explicit VR Little Endian; `elements` by keyword."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, sop_instance_uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.Modality, dataset.StudyDescription = "CT", "CT liver"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "P1"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated, dataset.SamplesPerPixel = 16, 1
    dataset.PixelData = bytes(range(32))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    encoded: bytes = buffer.getvalue()
    return encoded


def write_object(
    path: Path, dataset: bytes, sop_instance_uid: str, sop_class: str = CT, transfer_syntax: str = EXPLICIT_LITTLE
) -> Path:
    """A DICOM file around encoded bytes."""
    path.write_bytes(file_head(sop_class, sop_instance_uid, transfer_syntax) + dataset)
    return path


def write_objects(folder: Path, count: int) -> dict[str, Path]:
    """Slices of one series: SOP Instance UID -> file."""
    uids = [new_uid() for _ in range(count)]
    return {
        uid: write_object(folder / f"{number}.dcm", dataset_bytes(uid, InstanceNumber=number), uid)
        for number, uid in enumerate(uids)
    }
