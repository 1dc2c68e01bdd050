"""Every code that is written into objects (PS3.2: annex on coded terminology)."""

from collections.abc import Iterator, Mapping
from typing import Any

from dicom_node.conformance.markdown import heading, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.encoding.concepts import CONCEPTS, PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, PRIVATE_SCHEME_UID, UNITS


def data(_sample: Sample) -> dict[str, Any]:
    """The tables of concepts and units, and the scheme of this node's own codes."""
    concepts = {
        (item.scheme, item.value): {
            "scheme": item.scheme,
            "value": item.value,
            "meaning": item.meaning,
            "source": item.source,
            "beside": CONCEPTS[item.generic].meaning if item.generic else None,
        }
        for item in CONCEPTS.values()
    }
    return {
        "terminology": {
            "private_scheme": {
                "designator": PRIVATE_SCHEME,
                "uid": PRIVATE_SCHEME_UID,
                "name": PRIVATE_SCHEME_NAME,
            },
            "concepts": [concepts[key] for key in sorted(concepts)],
            "units": [
                {"scheme": unit.scheme_designator, "value": unit.value, "meaning": unit.meaning}
                for unit in UNITS.values()
            ],
        }
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The annex."""
    terminology = found["terminology"]
    scheme = terminology["private_scheme"]
    yield from heading(2, "Coded terminology")
    yield from paragraph(
        f'Codes of this node\'s own scheme {scheme["designator"]} ({scheme["uid"]}, "{scheme["name"]}") stand where no '
        "public code is known; where there is a public code that is near, it is written beside the own one."
    )
    rows = [
        (item["scheme"], item["value"], item["meaning"], item["source"], item["beside"] or "-")
        for item in terminology["concepts"]
    ]
    yield from table(("Scheme", "Code", "Meaning", "From", "Beside it"), rows)
    yield from heading(3, "Units")
    yield from table(
        ("Scheme", "Code", "Meaning"), [(i["scheme"], i["value"], i["meaning"]) for i in terminology["units"]]
    )
