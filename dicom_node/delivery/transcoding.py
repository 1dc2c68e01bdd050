"""An object in Implicit VR Little Endian, for a destination that takes nothing else."""

from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.uid import ImplicitVRLittleEndian


def implicit_file(path: Path) -> bytes:
    """The file's object in Implicit VR Little Endian: the same elements, values and SOP Instance UID.

    Lossless, and the same bytes every time; only the VRs are no longer written beside the values, which is another
    encoding of the same Instance and no new one (PS3.5 section 10.1: every application must understand it).
    path : a DICOM file that is not compressed. Raises OSError, pydicom.errors.InvalidDicomError.
    """
    dataset = pydicom.dcmread(path)
    for _element in dataset.iterall():
        pass  # decoded now: a value that is still raw would be written with the VRs that it was read with
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    return buffer.getvalue()
