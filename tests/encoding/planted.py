"""Result objects taken apart, damaged on purpose and put together again, for the tests of the read-back gate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO

from pydicom import Dataset, dcmread

from dicom_node.encoding.header import to_bytes
from dicom_node.encoding.results import EncodedObject

Fault = Callable[[Dataset], object]


def damaged(objects: Sequence[EncodedObject], kind: str, fault: Fault) -> tuple[EncodedObject, ...]:
    """The objects with one fault in the one of `kind`, kept on record as its bytes then say."""
    return tuple(rebuilt(item, fault) if item.kind == kind else item for item in objects)


def rebuilt(item: EncodedObject, fault: Fault) -> EncodedObject:
    """One object, damaged and written again."""
    dataset = dcmread(BytesIO(item.data))
    fault(dataset)
    return replace(
        item,
        data=to_bytes(dataset),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
    )


def content(dataset: Dataset) -> Iterator[Dataset]:
    """Every content item of a report, in order."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from content(item)


def name(item: Dataset) -> str:
    """Code Value of a content item's concept name."""
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def groups(dataset: Dataset) -> list[Dataset]:
    """Measurement groups."""
    return [item for item in content(dataset) if name(item) == "125007"]


def without(parent: Dataset, leave_out: Callable[[Dataset], bool]) -> None:
    """Remove content items, at any depth."""
    if "ContentSequence" in parent:
        parent.ContentSequence = [item for item in parent.ContentSequence if not leave_out(item)]
        for item in parent.ContentSequence:
            without(item, leave_out)


def every(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    """Every item, at any depth, that has the element."""
    if keyword in dataset:
        yield dataset
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                yield from every(item, keyword)
