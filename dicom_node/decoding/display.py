"""Frames as a viewer shows them: colour or grey pictures of 8 bits. For pictures only, never for measuring."""

from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from dicom_node.decoding.pixels import MAX_MATRIX, decode_frame, instance_uid
from dicom_node.errors import UnreadableSeries

_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422"})
_GREYS = frozenset({"MONOCHROME1", "MONOCHROME2"})


def displayed_frame(dataset: pydicom.Dataset, frame: int) -> NDArray[Any]:
    """One frame as RGB uint8 [row, column, 3]; a grey one as its values after rescale, float32 [row, column].

    frame : 0-based index into Pixel Data.
    RGB, YBR and PALETTE COLOR of 8 bits (or a palette of 16) are what ultrasound, endoscopy and captures use.
    Raises UnreadableSeries naming the Instance and the element.
    """
    uid = instance_uid(dataset)
    if "PixelData" not in dataset:
        raise UnreadableSeries(f"Instance {uid}: no Pixel Data (7FE0,0010); it is no image.")
    for keyword, tag in (("Rows", "0028,0010"), ("Columns", "0028,0011")):
        value = dataset.get(keyword)
        if not isinstance(value, int) or not 2 <= value <= MAX_MATRIX:
            raise UnreadableSeries(f"Instance {uid}: {keyword} ({tag}) is {value}; 2 to {MAX_MATRIX} is needed.")
    interpretation = str(dataset.get("PhotometricInterpretation") or "")
    bits, samples = dataset.get("BitsAllocated"), dataset.get("SamplesPerPixel", 1)
    if interpretation in _GREYS and samples == 1 and bits in (8, 16):
        return np.asarray(apply_modality_lut(decode_frame(dataset, frame), dataset), dtype=np.float32)
    if interpretation == "PALETTE COLOR" and samples == 1 and bits in (8, 16):
        coloured = apply_color_lut(decode_frame(dataset, frame), dataset)
        depth = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        return np.asarray(coloured if depth <= 8 else coloured >> (depth - 8), dtype=np.uint8)[..., :3]
    if interpretation in _COLOURS and samples == 3 and bits == 8:
        return np.asarray(decode_frame(dataset, frame, as_rgb=True), dtype=np.uint8)
    raise UnreadableSeries(
        f"Instance {uid}: Photometric Interpretation (0028,0004) {interpretation} with Samples per Pixel (0028,0002) "
        f"{samples} and Bits Allocated (0028,0100) {bits} cannot be shown."
    )
