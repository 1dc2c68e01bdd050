"""A quantity per voxel -> a Parametric Map on the grid of the source images (PS3.3 A.75, C.8.32).

Stored values are the real values, 32 bit floating point. The alternative, 16 bit integers with a slope and intercept in
Real World Value Mapping, reads well only where that mapping is applied: OHIF 3.13 ignores it, multiplies what is stored
by 100 and lets 16 bit integers overflow, so that only floating point shows the right picture. The mapping is there all
the same, slope 1, with unit and quantity.

The same viewer puts frames onto slices by their order alone, rising along the normal, and takes the range of colours
from all stored values. So every slice has a frame, frames rise along the normal whatever the order of the source, and
where the map has no value the frames hold a finite number (Float Pixel Padding Value) next to the range, not NaN.
"""

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from dicom_node.encoding.concepts import is_own, unit
from dicom_node.encoding.decimals import decimal_string
from dicom_node.encoding.frames import (
    POSITION_INDEX,
    Frame,
    add_dimensions,
    add_frames,
    add_lossy_flags,
    add_references,
    order_along_normal,
    shared_groups,
)
from dicom_node.encoding.header import (
    add_code,
    add_frame_of_reference,
    new_object,
    plain,
    series_description,
    shortened,
)
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.segmentation import content_description
from dicom_node.encoding.sources import InvalidResult, SourceStack
from pipelines.findings import Map

#: Percentiles of the values that the window spans, so that a few outliers do not flatten the picture.
WINDOW_PERCENTILES = (1.0, 99.0)
_IMAGE_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]


def parametric_map(map_: Map, stack: SourceStack, provenance: Provenance, number: int = 1) -> Dataset | None:
    """The Parametric Map of one quantity, ready to be written; None if it has no value anywhere.

    map_ : values [slice, row, column] on the grid of `stack`, in `unit`; NaN where there is none.
    number : 1 to 10, place of the map among those of the answer; part of its UIDs and Series Number.
    Raises InvalidResult for another shape than the source's or an infinite value, UnknownConcept for a quantity or unit
    without a code.
    """
    if map_.values.shape != stack.shape:
        raise InvalidResult(
            f"{map_.label}: the map has {map_.values.shape} slices, rows, columns; "
            f"its source images have {stack.shape}."
        )
    if np.isinf(map_.values).any():
        raise InvalidResult(f"{map_.label}: the map has infinite values; finite ones or NaN are needed.")
    valid = map_.values[~np.isnan(map_.values)]
    if not valid.size:
        return None
    lowest, highest = float(valid.min()), float(valid.max())
    padding = padding_value(lowest, highest)
    role = f"pm {number}"
    dataset = new_object(
        str(ParametricMapStorage),
        str(stack.header.get("Modality") or "OT"),
        stack.header,
        provenance,
        role=role,
        series_number=provenance.series_number("pm", number),
        series_description=shortened(f"{map_.label} {series_description(provenance)}", 64),
        own_codes=is_own(map_.concept),
    )
    add_frame_of_reference(dataset, stack)
    dataset.ImageType = _IMAGE_TYPE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = stack.rows, stack.columns, 32
    dataset.PixelPresentation, dataset.PresentationLUTShape = "MONOCHROME", "IDENTITY"
    dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures = "NO", "NO"
    add_lossy_flags(dataset, stack.header)
    dataset.ContentLabel = "AI_MAP"
    dataset.ContentDescription = content_description(provenance)
    dataset.ContentCreatorName = "AI^dicom-node"
    dataset.AcquisitionContextSequence = []
    add_references(dataset, stack)
    add_dimensions(dataset, provenance, role, (POSITION_INDEX,))
    shared = shared_groups(stack)
    _add_quantity(shared, map_, stack, (min(lowest, padding), highest))
    _add_display(shared, map_.shown_range or _window(valid))
    dataset.SharedFunctionalGroupsSequence = [shared]
    rising = [int(index) for index in np.argsort(order_along_normal(stack))]
    add_frames(dataset, [Frame(index, ()) for index in rising], stack, "calculation")
    dataset.FloatPixelPaddingValue = dataset.FloatPixelPaddingRangeLimit = padding
    dataset.FloatPixelData = _stored(map_.values, rising, padding)
    return dataset


def padding_value(lowest: float, highest: float) -> float:
    """What is stored where the map has no value: 0 below positive values, else one hundredth of the range below.

    Never a value of the map, exact in 32 bits; near the range, for viewers that count it in with the values.
    """
    if lowest > 0:
        return 0.0
    return float(np.float32(lowest - max(0.01 * (highest - lowest), 1e-3 * abs(lowest), 1e-3)))


def _stored(values: NDArray[np.float32], order: list[int], padding: float) -> bytes:
    planes = values[order].astype("<f4")
    planes[np.isnan(planes)] = padding
    return planes.tobytes()


def _window(valid: NDArray[np.float32]) -> tuple[float, float]:
    """Lowest and highest value to tell apart on the screen."""
    some = valid[:: 1 + valid.size // 1_000_000]
    low, high = (float(value) for value in np.percentile(some, WINDOW_PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _add_quantity(groups: Dataset, map_: Map, stack: SourceStack, mapped: tuple[float, float]) -> None:
    """Real World Value Mapping (PS3.3 C.7.6.16.2.11): stored values are those of the quantity.

    mapped : range of stored values; the padding is in it, since readers refuse images with values outside.
    """
    mapping, quantity, units = Dataset(), Dataset(), Dataset()
    mapping.LUTExplanation = shortened(plain(map_.label, stack.header), 64)
    mapping.LUTLabel = "MAP"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 1.0, 0.0
    mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped = mapped
    code = unit(map_.unit)
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = code.value, code.scheme_designator, code.meaning
    mapping.MeasurementUnitsCodeSequence = [units]
    quantity.ValueType = "CODE"
    add_code(quantity, "ConceptNameCodeSequence", "quantity")
    add_code(quantity, "ConceptCodeSequence", map_.concept)
    mapping.QuantityDefinitionSequence = [quantity]
    groups.RealWorldValueMappingSequence = [mapping]


def _add_display(groups: Dataset, window: tuple[float, float]) -> None:
    """Frame VOI LUT, identity rescale, frame type and anatomy, which the IOD requires (PS3.3 Table A.75-2)."""
    low, high = window
    voi, rescale, frame_type, anatomy = Dataset(), Dataset(), Dataset(), Dataset()
    voi.WindowCenter = decimal_string((low + high) / 2)
    voi.WindowWidth = decimal_string(high - low)
    voi.VOILUTFunction = "LINEAR_EXACT"  # LINEAR would need a width of 1 at least
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = 0, 1, "US"
    frame_type.FrameType = _IMAGE_TYPE
    anatomy.FrameLaterality = "U"
    add_code(anatomy, "AnatomicRegionSequence", "liver")
    groups.FrameVOILUTSequence = [voi]
    groups.PixelValueTransformationSequence = [rescale]
    groups.ParametricMapFrameTypeSequence = [frame_type]
    groups.FrameAnatomySequence = [anatomy]
