"""Where an object points: every Instance that it names is a source image or another object of the set."""

from collections.abc import Iterator, Mapping

from dicom_node.encoding.read_back.elements import Item, tag_of, walk
from dicom_node.encoding.read_back.images import InputImages, SourceImage
from dicom_node.encoding.read_back.opened import Opened

_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
_PREDECESSORS = "PredecessorDocumentsSequence"


def check_references(result: Opened, set_: Mapping[str, Opened], images: InputImages) -> None:
    """Every reference resolves, to an Instance of that SOP Class, to frames that exist. Raises InvalidResult.

    set_ : SOP Instance UID -> all objects that leave together, this one among them.
    A report may name the documents that it replaces, which are not here, and the sources' own references to requests
    and studies are copied unread.
    """
    predecessors = {item.text("ReferencedSOPInstanceUID") for item in _predecessors(result.dataset)}
    if known := predecessors & ({result.uid} | images.by_uid.keys() | set_.keys()):
        raise result.fault(f"names {sorted(known)[0]} as its predecessor, which leaves with it or is a source image.")
    for item in _referring(result):
        uid, sop_class_uid = item.text("ReferencedSOPInstanceUID"), item.text("ReferencedSOPClassUID")
        image, other = images.by_uid.get(uid), set_.get(uid)
        if uid == result.uid:
            raise result.fault("refers to itself.")
        if image is None and other is None:
            raise result.fault(f"refers to Instance {uid}, which is neither a source image nor leaves with it.")
        needed = image.sop_class_uid if image is not None else other.sop_class_uid if other is not None else ""
        if sop_class_uid != needed:
            raise result.fault(f"refers to Instance {uid} as SOP Class {sop_class_uid!r}; it is {needed}.")
        if image is not None:
            _check_frames(result, item, image)


def _check_frames(result: Opened, item: Item, image: SourceImage) -> None:
    numbers = item.numbers("ReferencedFrameNumber")
    if not image.counts_frames and len(numbers):
        raise result.fault(f"refers to a frame of Instance {image.uid}, which has none.")
    if any(not 1 <= number <= (image.frames or 1) for number in numbers):
        raise result.fault(
            f"refers to frames {numbers.astype(int).tolist()} of Instance {image.uid}, which has {image.frames or 1}."
        )


def check_evidence(result: Opened, set_: Mapping[str, Opened], images: InputImages, *, complete: bool) -> None:
    """What the content refers to is in the evidence, under the Study and Series it is of. Raises InvalidResult.

    complete : so is every source image.
    """
    listed: set[str] = set()
    study_uid = result.dataset.text("StudyInstanceUID")
    for study in (item for keyword in _EVIDENCE for item in result.dataset.sequence(keyword)):
        if study.text("StudyInstanceUID") != study_uid:
            raise result.fault(f"the evidence is of Study {study.text('StudyInstanceUID')!r}, not {study_uid}.")
        for series in study.sequence("ReferencedSeriesSequence"):
            series_uid = series.text("SeriesInstanceUID")
            for item in series.sequence("ReferencedSOPSequence"):
                uid = item.text("ReferencedSOPInstanceUID")
                if uid in listed:
                    raise result.fault(f"Instance {uid} is in the evidence twice.")
                listed.add(uid)
                image, other = images.by_uid.get(uid), set_.get(uid)
                needed = image.series_uid if image is not None else other.series_uid if other is not None else ""
                if series_uid != needed:
                    raise result.fault(
                        f"the evidence has Instance {uid} under Series {series_uid!r}; it is of {needed!r}."
                    )
    named = {
        item.text("ReferencedSOPInstanceUID")
        for keyword, item in _below(result.dataset, "ContentSequence")
        if keyword == "ReferencedSOPSequence"
    }
    if complete:
        named |= images.by_uid.keys()
    if missing := named - listed:
        raise result.fault(
            f"{len(missing)} Instances that it refers to are not in the evidence, among them {sorted(missing)[0]}."
        )


def check_referenced_series(result: Opened, images: InputImages) -> str:
    """The one source Series that a SEG or map lies on (PS3.3 C.12.2); its UID. Raises InvalidResult.

    Viewers attach nothing that does not name it, and read its first item only.
    """
    series = result.dataset.sequence("ReferencedSeriesSequence")
    if not series:
        raise result.fault("there is no Referenced Series Sequence (0008,1115); viewers would not show it.")
    uid = series[0].text("SeriesInstanceUID")
    if uid not in images.series:
        raise result.fault(f"the first Referenced Series is {uid!r}, which is none of the source images.")
    for item in series:
        for reference in item.sequence("ReferencedInstanceSequence"):
            image = images.by_uid.get(reference.text("ReferencedSOPInstanceUID"))
            if image is not None and image.series_uid != item.text("SeriesInstanceUID"):
                raise result.fault(f"Instance {image.uid} is listed under a Series that it is not of.")
    return uid


def _below(dataset: Item, keyword: str) -> Iterator[tuple[str, Item]]:
    """Every item below one sequence, its own among them."""
    tag = tag_of(keyword)
    return walk(Item({tag: dataset[tag]})) if tag in dataset else iter(())


def _predecessors(dataset: Item) -> list[Item]:
    return [item for _, item in _below(dataset, _PREDECESSORS) if _REFERENCE in item]


def _referring(result: Opened) -> Iterator[Item]:
    """Every item that names an Instance, but for predecessors and what was copied from the source."""
    apart = {id(item) for item in _predecessors(result.dataset)}
    apart |= {id(item) for _, item in _below(result.dataset, "ReferencedRequestSequence")}
    for _, item in result.items:
        if _REFERENCE in item and id(item) not in apart:
            yield item


_REFERENCE = tag_of("ReferencedSOPInstanceUID")
