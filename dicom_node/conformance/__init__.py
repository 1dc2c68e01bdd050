"""The DICOM conformance statement (PS3.2), made from the tables that the code itself uses.

`statement` gives the data, a tree of plain JSON; `as_markdown` makes the document of it. A module per part, each with
`data` and `lines`. What a table does not hold is not claimed: a section appears with the thing that it tells of.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dicom_node.conformance import air, attributes, configuration, network, objects, overview, security, terminology
from dicom_node.conformance.markdown import heading
from dicom_node.conformance.sample import sample_objects

_PARTS = (overview, network, configuration, security, objects, attributes, terminology, air)


def statement() -> dict[str, Any]:
    """Everything that is claimed, as plain JSON. Encodes a sample answer, of which the annexes tell."""
    sample = sample_objects()
    found: dict[str, Any] = {}
    for part in _PARTS:
        found |= part.data(sample)
    return found


def as_markdown(data: Mapping[str, Any]) -> str:
    """The document of what `statement` gave, in the order of PS3.2."""

    def lines() -> Iterator[str]:
        yield "# DICOM Conformance Statement: dicom-node"
        yield from overview.lines(data)
        yield from network.lines(data)
        yield from configuration.lines(data)
        yield from security.lines(data)
        yield from heading(1, "Annexes")
        for part in (objects, attributes, terminology, air):
            yield from part.lines(data)

    return "\n".join(lines()).strip() + "\n"
