"""Pixel data of one frame as stored values, with the decoder of each Transfer Syntax fixed in advance.

pydicom tries its plugins in an order that depends on what is installed; two machines could then decode lossy images
differently. The order here is fixed, fastest bit-exact decoder first.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.errors import UnreadableSeries

#: Transfer Syntax -> decoder plugins of pydicom, first one that is installed wins.
PLUGIN_ORDER: dict[str, tuple[str, ...]] = {
    RLELossless: ("pylibjpeg", "pydicom"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    JPEG2000: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    JPEGLSLossless: ("pyjpegls", "gdcm"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    JPEGLosslessSV1: ("gdcm",),
    JPEGLossless: ("gdcm",),
    JPEGBaseline8Bit: ("gdcm",),
    JPEGExtended12Bit: ("gdcm",),
}

#: Largest Rows and Columns that a scanner makes; more is a damaged or hostile header.
MAX_MATRIX = 4096
#: A deflated file of one image that unpacks to more than this is refused.
MAX_INFLATED_BYTES = 2**30


def read_dataset(path: Path) -> pydicom.Dataset:
    """Read one DICOM file with its pixel data.

    Raises UnreadableSeries if it is no DICOM file, is damaged, or is a deflated file that unpacks to over 1 GiB. The
    text names the SOP Instance UID where it can be read, never the file name, which may hold a patient's name.
    """
    sop_instance_uid = "unknown"
    try:
        with path.open("rb") as file:
            meta = pydicom.filereader.read_file_meta_info(path) if _has_preamble(file.read(132)) else None
        if meta is not None:
            sop_instance_uid = str(meta.get("MediaStorageSOPInstanceUID", "unknown"))
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                _check_inflated_size(path, sop_instance_uid)
        dataset = pydicom.dcmread(path)
        if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
            raise UnreadableSeries(
                f"Instance {sop_instance_uid}: no Transfer Syntax UID (0002,0010) in the file; send the Series again."
            )
        return dataset
    except UnreadableSeries:
        raise
    except Exception as error:  # pydicom raises a wide range on damaged files
        raise UnreadableSeries(
            f"Instance {sop_instance_uid}: the file cannot be read as DICOM ({type(error).__name__}); "
            "send the Series again."
        ) from error


def stored_values(dataset: pydicom.Dataset, frame: int) -> NDArray[np.integer[Any]]:
    """Stored values of one grey frame, before any rescale.

    frame : 0-based index into Pixel Data.
    Returns integers [row, column].
    Raises UnreadableSeries naming the Instance and the element.
    """
    array = decode_frame(dataset, frame)
    if array.shape != (dataset.Rows, dataset.Columns):
        raise UnreadableSeries(
            f"Instance {instance_uid(dataset)}: Pixel Data (7FE0,0010) decodes to {array.shape}, "
            f"Rows x Columns say {dataset.Rows} x {dataset.Columns}."
        )
    return array


def colour_values(dataset: pydicom.Dataset, frame: int) -> NDArray[np.uint8]:
    """Pixels of one frame of a colour image.

    frame : 0-based index into Pixel Data.
    Returns uint8 [row, column, (red, green, blue)]; YBR and palettes are converted (PS3.3 C.7.6.3.1.2, C.7.9).
    Raises UnreadableSeries naming the Instance and the element.
    """
    array = decode_frame(dataset, frame, as_rgb=True)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        try:
            array = apply_color_lut(array, dataset)
        except Exception as error:  # a palette may be broken in many ways
            raise UnreadableSeries(
                f"Instance {instance_uid(dataset)}: the palette of Photometric Interpretation (0028,0004) PALETTE "
                f"COLOR cannot be applied ({_last_line(error)})."
            ) from error
        if array.dtype != np.uint8:
            array = (array >> 8).astype(np.uint8)
    if array.shape != (dataset.Rows, dataset.Columns, 3) or array.dtype != np.uint8:
        raise UnreadableSeries(
            f"Instance {instance_uid(dataset)}: Pixel Data (7FE0,0010) decodes to {array.shape} of {array.dtype}; "
            f"{dataset.Rows} x {dataset.Columns} x 3 of 8 bit is needed."
        )
    return np.ascontiguousarray(array[..., :3])


def decode_frame(dataset: pydicom.Dataset, frame: int, *, as_rgb: bool = False) -> NDArray[Any]:
    """One frame of any kind as its decoder gives it: [row, column] or [row, column, sample].

    frame : 0-based index into Pixel Data.
    as_rgb : turn YBR into RGB.
    Raises UnreadableSeries naming the Instance and the element.
    """
    uid = instance_uid(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableSeries(
            f"Instance {uid}: Transfer Syntax (0002,0010) {syntax} cannot be decoded; "
            "send it uncompressed or in a syntax of the conformance statement."
        ) from error
    installed = decoder.available_plugins
    plugin = next((name for name in PLUGIN_ORDER.get(syntax, ()) if name in installed), "")
    if not plugin and syntax.is_encapsulated:
        raise UnreadableSeries(
            f"Instance {uid}: no decoder is installed for Transfer Syntax (0002,0010) {syntax} {syntax.name}; "
            f"needed: {' or '.join(PLUGIN_ORDER.get(syntax, ('none known',)))}."
        )
    try:
        array, _ = decoder.as_array(dataset, index=frame, raw=not as_rgb, decoding_plugin=plugin)
    except Exception as error:  # decoders raise anything on a damaged bit stream
        raise UnreadableSeries(
            f"Instance {uid}: Pixel Data (7FE0,0010) frame {frame + 1} cannot be decoded, "
            f"Transfer Syntax {syntax.name} ({_last_line(error)}); send the Series again, or uncompressed."
        ) from error
    return array


def check_pixel_description(dataset: pydicom.Dataset, *, is_colour: bool = False) -> None:
    """Refuse, before anything is allocated, what cannot be a grey image of a scanner, or a picture in colours.

    Raises UnreadableSeries naming the Instance and the element.
    """
    uid = instance_uid(dataset)
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableSeries(f"Instance {uid}: no Pixel Data (7FE0,0010); it is no image.")
    if "PixelData" not in dataset:
        raise UnreadableSeries(f"Instance {uid}: floating point Pixel Data; integers in (7FE0,0010) are needed.")
    for keyword, tag in (("Rows", "0028,0010"), ("Columns", "0028,0011")):
        value = dataset.get(keyword)
        if not isinstance(value, int) or not 2 <= value <= MAX_MATRIX:
            raise UnreadableSeries(f"Instance {uid}: {keyword} ({tag}) is {value}; 2 to {MAX_MATRIX} is needed.")
    samples = dataset.get("SamplesPerPixel", 1)
    if is_colour and (samples == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"):
        pass
    elif is_colour:
        raise UnreadableSeries(
            f"Instance {uid}: Samples per Pixel (0028,0002) is {samples}, a grey image; a colour image is needed."
        )
    elif samples != 1:
        raise UnreadableSeries(
            f"Instance {uid}: Samples per Pixel (0028,0002) is {samples}, a colour image; 1 is needed."
        )
    bits = dataset.get("BitsAllocated")
    if bits not in (8, 16, 32):
        raise UnreadableSeries(f"Instance {uid}: Bits Allocated (0028,0100) is {bits}; 8, 16 or 32 is needed.")


def instance_uid(dataset: pydicom.Dataset) -> str:
    """SOP Instance UID for messages, "unknown" where it is missing."""
    return str(dataset.get("SOPInstanceUID", "unknown"))


def _last_line(error: Exception) -> str:
    """What the decoder itself said; pydicom puts it last."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:120] if lines else type(error).__name__


def _has_preamble(head: bytes) -> bool:
    return head[128:132] == b"DICM"


def _check_inflated_size(path: Path, sop_instance_uid: str) -> None:
    """Unpack a deflated data set in pieces and stop at the limit; pydicom itself would unpack it whole."""
    with path.open("rb") as file:
        file.seek(132)
        _ = pydicom.filereader._read_file_meta_info(file)  # leaves the file at the first byte after group 0002
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        total = 0
        while piece := file.read(1 << 20):
            while piece:
                total += len(unpacker.decompress(piece, 1 << 22))
                piece = unpacker.unconsumed_tail
                if total > MAX_INFLATED_BYTES:
                    raise UnreadableSeries(
                        f"Instance {sop_instance_uid}: the deflated data set unpacks to more than "
                        f"{MAX_INFLATED_BYTES} bytes."
                    )
