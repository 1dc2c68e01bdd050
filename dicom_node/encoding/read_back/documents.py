"""Parametric Maps, Key Object Selections, Secondary Captures and PDFs read back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.read_back import tree
from dicom_node.encoding.read_back.elements import Item
from dicom_node.encoding.read_back.grid import frame_groups, places_of_frames
from dicom_node.encoding.read_back.images import InputImages, Place
from dicom_node.encoding.read_back.opened import Opened
from dicom_node.encoding.read_back.tree import content_of

_FLOATS = {"FloatPixelData": ("<f4", 32), "DoubleFloatPixelData": ("<f8", 64), "PixelData": ("<u2", 16)}
_PDF_HEAD, _PDF_TAIL = b"%PDF-", b"%%EOF"


@dataclass(frozen=True)
class ReadMap:
    """What a Parametric Map says, from its bytes alone."""

    result: Opened
    places: Sequence[Place]  # of each frame
    values: NDArray[np.generic]  # [frame, row, column]
    padding: float  # where there is no value; NaN: there is a value everywhere


def read_parametric_map(result: Opened, images: InputImages) -> ReadMap:
    """On the grid of its source, every pixel with a meaning and a unit (PS3.3 A.75, C.8.32). Raises InvalidResult."""
    dataset = result.dataset
    places = places_of_frames(result, images)
    if len(set(places)) < len(places):
        raise result.fault("two frames lie on the same image.")
    present = [keyword for keyword in _FLOATS if dataset.padded(keyword)]
    if len(present) != 1:
        raise result.fault(f"has {len(present)} kinds of pixel data; one is needed.")
    dtype, bits = _FLOATS[present[0]]
    rows, columns = dataset.integer("Rows") or 0, dataset.integer("Columns") or 0
    value = dataset.padded(present[0])
    if dataset.integer("BitsAllocated") != bits or len(value) != len(places) * rows * columns * bits // 8:
        raise result.fault(
            f"{present[0]} has {len(value)} bytes, with {dataset.integer('BitsAllocated')} bits allocated; "
            f"{len(places)} frames of {rows} rows and {columns} columns are needed."
        )
    values = np.frombuffer(value, dtype=dtype)
    if dtype != "<u2" and (np.isinf(values).any() or np.isnan(values).all()):
        raise result.fault("holds infinite values, or none at all.")
    shared, groups = frame_groups(result)
    for number, frame in enumerate(groups, start=1):
        mappings = frame.sequence(_MAPPING) or shared.sequence(_MAPPING)
        if not mappings:
            raise result.fault(f"frame {number} has no Real World Value Mapping (0040,9096): its values have no unit.")
        for mapping in mappings if frame.sequence(_MAPPING) or number == 1 else ():
            _check_mapping(result, mapping)
    padding = dataset.numbers("FloatPixelPaddingValue")
    return ReadMap(
        result, places, values.reshape(len(places), rows, columns), float(padding[0]) if len(padding) else float("nan")
    )


_MAPPING = "RealWorldValueMappingSequence"


def _check_mapping(result: Opened, mapping: Item) -> None:
    """PS3.3 C.7.6.16.2.11."""
    scheme, unit = mapping.code("MeasurementUnitsCodeSequence")
    if scheme != "UCUM" or not unit:
        raise result.fault(f"its values have the unit {unit!r} of {scheme!r}; a unit of UCUM is needed.")
    slope, intercept = mapping.numbers("RealWorldValueSlope"), mapping.numbers("RealWorldValueIntercept")
    if len(slope) != 1 or len(intercept) != 1 or not np.isfinite([*slope, *intercept]).all() or slope[0] == 0:
        raise result.fault("its Real World Value Mapping has no slope, a slope of 0 or no intercept.")
    quantities = [
        item for item in mapping.sequence("QuantityDefinitionSequence") if item.code("ConceptCodeSequence")[1]
    ]
    if not quantities:
        raise result.fault("its Real World Value Mapping does not say what the values are (0040,9220).")


def check_key_objects(result: Opened) -> None:
    """A Key Object Selection with a title and something selected (PS3.16 TID 2010). Raises InvalidResult."""
    dataset = result.dataset
    document = content_of(dataset)
    if document.kind != "CONTAINER" or document.name[0] != "DCM" or not document.name[1].startswith("1130"):
        raise result.fault(f"its title is {document.name}; one of CID 7010 is needed.")
    if dataset.first("ContentTemplateSequence").text("TemplateIdentifier") != "2010":
        raise result.fault("its template is not 2010.")
    if not any(content.kind in ("IMAGE", "COMPOSITE", "WAVEFORM") for content in document.below):
        raise result.fault("it selects nothing.")
    observers = [content.item for content in document.below if content.name == tree.OBSERVER_TYPE]
    if not observers or any(item.code("ConceptCodeSequence") != tree.DEVICE for item in observers):
        raise result.fault("the observer is not typed as a device; it would read as a person's choice.")


def check_capture(result: Opened) -> None:
    """A picture that any viewer opens (PS3.3 A.8). Raises InvalidResult."""
    dataset = result.dataset
    colours = {"RGB": 3, "MONOCHROME2": 1, "MONOCHROME1": 1}.get(dataset.text("PhotometricInterpretation"))
    if dataset.integer("SamplesPerPixel") != colours:
        raise result.fault(
            f"Photometric Interpretation {dataset.text('PhotometricInterpretation')!r} with "
            f"{dataset.integer('SamplesPerPixel')} samples per pixel."
        )
    if colours == 3 and dataset.integer("PlanarConfiguration") is None:
        raise result.fault("a colour picture has no Planar Configuration (0028,0006).")
    if dataset.words("ImageType")[:1] != ["DERIVED"]:
        raise result.fault(f"Image Type is {dataset.words('ImageType')}; it must say DERIVED.")
    if dataset.text("BurnedInAnnotation") not in ("YES", "NO"):
        raise result.fault("it does not say whether a patient's name is in the pixels (0028,0301).")
    samples = (dataset.integer("Rows") or 0) * (dataset.integer("Columns") or 0) * (colours or 0)
    size = samples * (dataset.integer("NumberOfFrames") or 1) * (dataset.integer("BitsAllocated") or 0) // 8
    value = dataset.padded("PixelData")
    if result.meta.text("TransferSyntaxUID") == "1.2.840.10008.1.2.1" and (not size or len(value) != size + size % 2):
        raise result.fault(f"Pixel Data (7FE0,0010) has {len(value)} bytes; {size + size % 2} are needed.")


def check_pdf(result: Opened) -> None:
    """A whole PDF and nothing else (PS3.3 A.45.1). Raises InvalidResult."""
    dataset = result.dataset
    if dataset.text("MIMETypeOfEncapsulatedDocument") != "application/pdf":
        raise result.fault(f"MIME type {dataset.text('MIMETypeOfEncapsulatedDocument')!r} is not application/pdf.")
    value = dataset.padded("EncapsulatedDocument")
    length = dataset.integer("EncapsulatedDocumentLength")
    if length is not None and len(value) != length + length % 2:
        raise result.fault(f"Encapsulated Document Length is {length}; there are {len(value)} bytes.")
    if not value.startswith(_PDF_HEAD) or _PDF_TAIL not in value[-64:]:
        raise result.fault("the encapsulated bytes are no whole PDF.")
