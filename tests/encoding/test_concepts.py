"""The table of concepts against pydicom's dictionary of PS3.16."""

import pytest
from pydicom.sr._concepts_dict import concepts as dictionary

from dicom_node.encoding.concepts import CONCEPTS, PRIVATE_SCHEME, UNITS, UnknownConcept, concept, unit


@pytest.mark.parametrize("key", sorted(CONCEPTS))
def test_public_codes_are_those_of_the_standard_and_all_fit(key: str) -> None:
    found = CONCEPTS[key]
    assert len(found.value) <= 16  # Short String; longer ones would need Long Code Value
    assert len(found.meaning) <= 64
    assert found.meaning.isascii()
    if found.generic:
        assert CONCEPTS[found.generic].scheme != PRIVATE_SCHEME
    if found.scheme in (PRIVATE_SCHEME, "LN", "RFC5646"):
        return
    meanings = {meaning for codes in dictionary[found.scheme].values() for value, (meaning, _) in codes.items()
                if value == found.value}  # fmt: skip
    assert meanings, f"{found.scheme} {found.value} is not in the dictionary"
    words = {text.lower() for meaning in meanings for text in (meaning, meaning.split(" (")[0])}
    assert found.meaning.lower() in words, meanings


def test_codes_are_not_used_twice_for_different_things() -> None:
    seen: dict[tuple[str, str], str] = {}
    for found in CONCEPTS.values():
        assert seen.setdefault((found.scheme, found.value), found.meaning) == found.meaning


def test_unknown_keys_are_named() -> None:
    with pytest.raises(UnknownConcept, match="'wobble'"):
        concept("wobble")
    with pytest.raises(UnknownConcept, match="'furlong'"):
        unit("furlong")


def test_units_are_ucum() -> None:
    assert {code.scheme_designator for code in UNITS.values()} == {"UCUM"}
    assert unit("%").value == "%"
