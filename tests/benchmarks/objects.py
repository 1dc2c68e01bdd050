"""The objects that the reception benchmark sends: made once per kind, sent under new UIDs in every round."""

import hashlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicom_node.dimse.part10 import file_head

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
CT, MR, US_MULTI_FRAME = (f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("2", "4", "3.1"))
_DISTINCT = 8  # objects of different pixels; they are sent again and again under new UIDs
_UID_LENGTH = 44


@dataclass(frozen=True)
class Kind:
    """A kind of object."""

    name: str
    sop_class_uid: str
    modality: str
    shape: tuple[int, ...]  # [row, column] or [frame, row, column]
    dtype: str

    @property
    def megabytes(self) -> float:
        """Of pixels, in 10^6 bytes."""
        return float(np.prod(self.shape)) * np.dtype(self.dtype).itemsize / 1e6


KINDS = {
    "ct": Kind("ct", CT, "CT", (512, 512), "int16"),
    "mr": Kind("mr", MR, "MR", (128, 128), "int16"),
    "us": Kind("us", US_MULTI_FRAME, "US", (125, 800, 1000), "uint8"),
}


@dataclass(frozen=True)
class SentSet:
    """Files of one study, ready to be sent, one folder per association."""

    folders: list[Path]
    study_instance_uid: str
    datasets: dict[str, tuple[str, int]]  # SOP Instance UID -> SHA-256 and length of its encoded Dataset
    files: dict[str, Path]

    @property
    def bytes(self) -> int:
        """Sum of the Datasets."""
        return sum(size for _, size in self.datasets.values())


def _new_uid() -> str:
    """A new UID of always the same length."""
    return "2.25." + str(10**38 + uuid.uuid4().int % 10**38)


class Maker:
    """Makes sets of one kind; everything slow happens here."""

    def __init__(self, kind: Kind, count: int) -> None:
        self.kind, self.count = kind, count
        self._placeholders = [_new_uid().encode() for _ in range(3)]  # study, series, object
        assert all(len(uid) == _UID_LENGTH for uid in self._placeholders)
        chance = np.random.default_rng(7)
        self._encoded = [self._encode(chance, number) for number in range(min(count, _DISTINCT))]

    def _encode(self, chance: np.random.Generator, number: int) -> bytes:
        study, series, sop = (uid.decode() for uid in self._placeholders)
        kind, dataset = self.kind, Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = kind.sop_class_uid, sop
        dataset.StudyDate, dataset.StudyTime, dataset.Modality = "20260102", "101112", kind.modality
        dataset.StudyDescription, dataset.SeriesDescription = "benchmark of reception", kind.name
        dataset.PatientName, dataset.PatientID = "Bench^Mark", "BENCH"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SeriesNumber, dataset.InstanceNumber = 1, number + 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = kind.shape[-2:]
        bits = 8 * np.dtype(kind.dtype).itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(kind.dtype == "int16")
        if len(kind.shape) == 3:
            dataset.NumberOfFrames, dataset.FrameTime = kind.shape[0], 33
        info = np.iinfo(kind.dtype)
        pixels = chance.integers(0, info.max, kind.shape, dtype=kind.dtype)
        dataset.add_new(0x7FE00010, "OW" if bits == 16 else "OB", pixels.tobytes())
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, dataset)
        encoded: bytes = buffer.getvalue()
        return encoded

    def make(self, folder: Path, associations: int) -> SentSet:
        """`count` files with new UIDs, spread over `associations` folders; what was in `folder` is removed."""
        shutil.rmtree(folder, ignore_errors=True)
        folders = [folder / str(number) for number in range(associations)]
        for each in folders:
            each.mkdir(parents=True)
        study, series = _new_uid(), _new_uid()
        datasets, files = {}, {}
        for number in range(self.count):
            sop = _new_uid()
            template = self._encoded[number % len(self._encoded)]
            head = template[:4096]  # all UIDs are before the pixels
            for old, new in zip(self._placeholders, (study, series, sop), strict=True):
                head = head.replace(old, new.encode())
            dataset = head + template[4096:]
            path = folders[number % associations] / f"{number:05d}.dcm"
            path.write_bytes(file_head(self.kind.sop_class_uid, sop, EXPLICIT_LITTLE) + dataset)
            datasets[sop] = (hashlib.sha256(dataset).hexdigest(), len(dataset))
            files[sop] = path
        return SentSet(folders, study, datasets, files)
