"""Geometry, time and contrast phase of enhanced multi-frame objects, from their functional groups (PS3.3 C.7.6.16)."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom import Dataset

from dicom_node.recognition.parsing import UnreadableHeader, parse_elements
from dicom_node.recognition.values import plain_text

_SHARED_GROUPS, _PER_FRAME_GROUPS = 0x52009229, 0x52009230
#: A frame takes about 2 kB here; 8000 frames are more than any liver exam has.
MAX_FRAME_GROUP_BYTES = 16 * 1024 * 1024

#: Enhanced CT, MR, PET and their legacy conversions keep positions in functional groups (PS3.3 C.7.6.16).
_ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.3",
    "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.128.1",
}


#: Enhanced MR, grey, colour and converted: their frames may be of different kinds (PS3.3 C.8.13.5.1).
_ENHANCED_MR = {"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4"}


def has_functional_groups(sop_class_uid: str) -> bool:
    return sop_class_uid in _ENHANCED


def frame_values(path: Path, sop_class_uid: str = "") -> dict[str, Any]:
    """Geometry, time and contrast phase of an enhanced multi-frame object, from its functional groups."""
    try:
        dataset = parse_elements(
            path, _PER_FRAME_GROUPS, [_SHARED_GROUPS, _PER_FRAME_GROUPS], most_bytes=MAX_FRAME_GROUP_BYTES
        )
        shared = [_item(dataset, _SHARED_GROUPS)]
        frames: list[Dataset] = list(dataset[_PER_FRAME_GROUPS].value)
    except UnreadableHeader:
        return {}
    except Exception:  # noqa: BLE001 - unreadable functional groups leave the Instance without geometry, not refused
        return {}
    found: dict[str, Any] = {}
    first = [frames[0] if frames else None, *shared]
    for keyword, group, width in (
        ("ImageOrientationPatient", "PlaneOrientationSequence", 6),
        ("PixelSpacing", "PixelMeasuresSequence", 2),
        ("SliceThickness", "PixelMeasuresSequence", 1),
        ("SpacingBetweenSlices", "PixelMeasuresSequence", 1),
    ):
        numbers = _group_numbers(first, group, keyword, width)
        if numbers is not None:
            found[keyword] = numbers[0] if width == 1 else numbers
    positions = [
        _group_numbers([frame, *shared], "PlanePositionSequence", "ImagePositionPatient", 3) for frame in frames
    ]
    if positions and all(p is not None for p in positions):
        found["FramePositions"] = positions
    phases = [
        _group_text([frame, *shared], "ContrastBolusUsageSequence", "ContrastBolusAgentPhase") for frame in frames
    ]
    named = sorted({p for p in phases if p})
    if named:
        found["FrameContrastPhases"] = named
        if len(named) == 1:
            found["ContrastBolusAgentPhase"] = named[0]
    kernel = _group_text(first, "CTReconstructionSequence", "ConvolutionKernel")
    if kernel:
        found["ConvolutionKernel"] = kernel
    times = sorted(
        t for frame in frames if (t := _group_text([frame], "FrameContentSequence", "FrameAcquisitionDateTime"))
    )
    if times:
        found["AcquisitionDateTime"] = times[0]
    if sop_class_uid in _ENHANCED_MR:
        found |= _mr_frame_values(frames, shared)
    return found


def _mr_frame_values(frames: list[Dataset], shared: list[Dataset | None]) -> dict[str, Any]:
    """What each frame of an Enhanced MR object shows: Frame Type (0008,9007) as one text, Complex Image Component
    (0008,9208), and its place in time; TemporalPositionIndex (0020,9128) or milliseconds after the trigger, whichever
    there is. None where a frame does not say it."""
    found: dict[str, Any] = {}
    group = "MRImageFrameTypeSequence"
    types = [_group_list([frame, *shared], group, "FrameType") for frame in frames]
    components = [_group_text([frame, *shared], group, "ComplexImageComponent") for frame in frames]
    for key, values in (("FrameTypes", types), ("FrameComponents", components)):
        if any(values):
            found[key] = values
    for macro, keyword in (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    ):
        numbers = [_group_numbers([frame], macro, keyword, 1) for frame in frames]
        if len({n[0] for n in numbers if n is not None}) > 1:
            found["FrameTimes"] = [n[0] if n is not None else None for n in numbers]
            break
    echo_ms = _group_numbers([frames[0] if frames else None, *shared], "MREchoSequence", "EffectiveEchoTime", 1)
    if echo_ms is not None:
        found["EchoTime"] = echo_ms[0]
    return found


def _item(dataset: Dataset | None, tag: int | str) -> Dataset | None:
    try:
        return dataset[tag].value[0] if dataset is not None else None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _group_value(places: Iterable[Dataset | None], group: str, keyword: str) -> Any:
    for place in places:
        item = _item(place, group)
        try:
            if item is not None and item.get(keyword) not in (None, ""):
                return item.get(keyword)
        except Exception:  # noqa: BLE001, S112 - a value that cannot be converted counts as absent
            continue
    return None


def _group_numbers(places: Iterable[Dataset | None], group: str, keyword: str, width: int) -> list[float] | None:
    value = _group_value(places, group, keyword)
    try:
        numbers = [float(value)] if width == 1 else [float(v) for v in value]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == width and all(map(math.isfinite, numbers)) else None


def _group_list(places: Iterable[Dataset | None], group: str, keyword: str) -> str | None:
    """A value of several parts as it stands in the file, parts between backslashes."""
    value = _group_value(places, group, keyword)
    if value is None or isinstance(value, str):
        return None if value is None else plain_text(value)
    return plain_text("\\".join(map(str, value)))


def _group_text(places: Iterable[Dataset | None], group: str, keyword: str) -> str | None:
    value = _group_value(places, group, keyword)
    return None if value is None else plain_text(str(value))
