"""What is in the objects that this node creates, read from encoded ones (PS3.2: annex on IOD contents)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement

from dicom_node.conformance.markdown import heading, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.encoding.header import IDENTITY_KEYWORDS
from dicom_node.encoding.package import KINDS, SOP_CLASSES

#: A value of these that is the same in every sample is a fixed one.
_FIXED_VRS = frozenset({"CS", "DS", "IS", "LO", "SH", "UI", "US"})
_COPIED = frozenset({"SpecificCharacterSet", *IDENTITY_KEYWORDS})


def data(sample: Sample) -> dict[str, Any]:
    """Per kind: attributes of the Dataset, and the content items of its tree where it has one."""
    return {"iods": [_iod(kind, [item.dataset for item in sample if item.kind == kind]) for kind in KINDS]}


def _iod(kind: str, datasets: Sequence[Dataset]) -> dict[str, Any]:
    tags = sorted({element.tag for dataset in datasets for element in dataset})
    return {
        "kind": kind,
        "sop_class_uid": SOP_CLASSES[kind],
        "attributes": [_attribute(tag, [dataset[tag] for dataset in datasets if tag in dataset]) for tag in tags],
        "content": _content(datasets),
    }


def _attribute(tag: int, elements: Sequence[DataElement]) -> dict[str, Any]:
    keyword, vr = keyword_for_tag(tag), elements[0].VR
    values = {_text(element) for element in elements} if vr in _FIXED_VRS else set()
    source = "answer"
    if keyword in _COPIED:
        source = "images"
    elif len(values) == 1 and len(elements) > 1:
        source = "fixed"
    return {
        "tag": f"({tag >> 16:04X},{tag & 0xFFFF:04X})",
        "keyword": keyword,
        "vr": vr,
        "source": source,
        "value": values.pop() if source == "fixed" else None,
    }


def _text(element: DataElement) -> str:
    values = element.value if element.VM > 1 else [element.value]
    return "\\".join(str(value) for value in values)


def _content(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Each kind of content item once: under which template, what relates it to its parent, its type and concept."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for dataset in datasets:
        if "ContentSequence" in dataset:
            for row in _items(dataset, "", 0):
                found.setdefault(tuple(str(value) for value in row.values()), row)
    return list(found.values())


def _items(item: Dataset, template: str, level: int) -> Iterator[dict[str, Any]]:
    if item.get("ContentTemplateSequence"):
        template = str(item.ContentTemplateSequence[0].TemplateIdentifier)
    name = item.ConceptNameCodeSequence[0] if item.get("ConceptNameCodeSequence") else None
    yield {
        "level": level,
        "template": template,
        "relationship": str(item.get("RelationshipType") or ""),
        "value_type": str(item.ValueType),
        "concept": f"({name.CodeValue}, {name.CodingSchemeDesignator}, {name.CodeMeaning})" if name else "",
    }
    for child in item.get("ContentSequence") or ():
        yield from _items(child, template, level + 1)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The annex."""
    yield from heading(2, "IOD contents")
    yield from paragraph(
        "Attributes at the top level of the Dataset. *images*: copied from the images, byte for byte, where they have "
        "them; *fixed*: always this value; *answer*: from the answer, the node and the time of the job. SOP Instance, "
        "Series and Tracking UIDs are derived from study, images, version and settings under 2.25, so that the same "
        "job gives the same object. No private attribute is written."
    )
    for iod in found["iods"]:
        yield from heading(3, f"{iod['kind']}: {KINDS[iod['kind']]} ({iod['sop_class_uid']})")
        rows = [
            (item["tag"], item["keyword"], item["vr"], item["source"], item["value"] or "-")
            for item in iod["attributes"]
        ]
        yield from table(("Tag", "Attribute", "VR", "Source", "Value"), rows)
        same = next((other["kind"] for other in found["iods"] if other["content"] == iod["content"]), iod["kind"])
        if same != iod["kind"]:
            yield from paragraph(f"Content items: those of {same}.")
        elif iod["content"]:
            yield from paragraph("Content items (PS3.16), each once:")
            items = [
                (f"{'>' * item['level']}{item['value_type']}", item["relationship"] or "-", item["template"],
                 item["concept"] or "-")
                for item in iod["content"]
            ]  # fmt: skip
            yield from table(("Item", "Relationship", "TID", "Concept name"), items)
