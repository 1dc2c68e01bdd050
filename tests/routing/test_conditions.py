"""Conditions on headers: each comparison, private attributes, explanations, and the laws of logic."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.routing.attributes import parse_attribute
from dicom_node.routing.conditions import parse_condition

HEADER: dict[str, Any] = {
    "00080008": {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY", "AXIAL"]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "0008103E": {"vr": "LO", "Value": ["Liver ART 动脉期"]},
    "00180050": {"vr": "DS", "Value": [2.5]},
    "00080050": {"vr": "SH"},
    "00190010": {"vr": "LO", "Value": ["OTHER"]},
    "00190011": {"vr": "LO", "Value": ["GEMS_PARM_01 "]},
    "0019119C": {"vr": "LO", "Value": ["MR-Touch"]},
    "0019109C": {"vr": "LO", "Value": ["decoy"]},
}


def holds(header: Any = None, **comparison: Any) -> bool:
    return parse_condition(comparison).explain(HEADER if header is None else header).holds


@pytest.mark.parametrize(
    ("comparison", "wanted"),
    [
        ({"attribute": "Modality", "equals": "CT"}, True),
        ({"attribute": "Modality", "equals": "MR"}, False),
        ({"attribute": "ImageType", "equals": "AXIAL"}, True),  # one of several values
        ({"attribute": "SliceThickness", "equals": 2.5}, True),
        ({"attribute": "SliceThickness", "equals": "2.50"}, True),
        ({"attribute": "Modality", "one_of": ["MR", "CT"]}, True),
        ({"attribute": "SeriesDescription", "contains": "liver"}, True),
        ({"attribute": "SeriesDescription", "contains": "spleen"}, False),
        ({"attribute": "SeriesDescription", "matches": "(?i)\\bart\\b|动脉"}, True),
        ({"attribute": "SeriesDescription", "matches": "^ART"}, False),
        ({"attribute": "SliceThickness", "between": [1, 3]}, True),
        ({"attribute": "SliceThickness", "between": [3, 5]}, False),
        ({"attribute": "Modality", "between": [0, 9]}, False),
        ({"attribute": "Modality", "exists": True}, True),
        ({"attribute": "PatientSex", "exists": True}, False),
        ({"attribute": "PatientSex", "exists": False}, True),
        ({"attribute": "PatientSex", "equals": "F"}, False),
        ({"attribute": "(0008,0060)", "equals": "CT"}, True),
        ({"attribute": "0008,0060", "equals": "CT"}, True),
        ({"attribute": "(0019,xx9C) GEMS_PARM_01", "equals": "MR-Touch"}, True),
        ({"attribute": "(0019,xx9C) OTHER", "equals": "decoy"}, True),
        ({"attribute": "(0019,xx9C) NOBODY", "exists": False}, True),
    ],
)
def test_comparisons(comparison: dict[str, Any], wanted: bool) -> None:
    assert holds(**comparison) is wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"attribute": "Modalty", "equals": "CT"}, "did you mean Modality"),
        ({"attribute": "PatientName", "equals": "X"}, "identifies a person"),
        ({"attribute": "(0010,0010)", "equals": "X"}, "identifies a person"),
        ({"attribute": "OtherPatientIDs", "exists": True}, "identifies a person"),
        ({"attribute": "ReferringPhysicianName", "exists": True}, "identifies a person"),
        ({"attribute": "(0019,109C)", "exists": True}, "Private Creator"),
        ({"attribute": "(0018,xx9C) GEMS", "exists": True}, "odd group"),
        ({"attribute": "Modality"}, "needs one of"),
        ({"attribute": "Modality", "equals": "CT", "contains": "C"}, "needs one of"),
        ({"attribute": "Modality", "equal": "CT"}, "needs one of"),
        ({"equals": "CT"}, "attribute"),
        ({"all": []}, "list of conditions"),
        ({"all": {"attribute": "Modality", "exists": True}}, "list of conditions"),
        ({"all": [], "any": []}, "stands alone"),
        ({"attribute": "KVP", "between": [3, 1]}, "lowest"),
        ({"attribute": "KVP", "between": [1]}, "lowest"),
        ({"attribute": "KVP", "between": [float("nan"), 1]}, "lowest"),
        ({"attribute": "Modality", "matches": "("}, "regular expression"),
        ({"attribute": "Modality", "matches": "(a+)+"}, "for ever"),
        ({"attribute": "Modality", "exists": "yes"}, "true or false"),
        ({}, "a condition is"),
        ("CT", "a condition is"),
    ],
)
def test_mistakes_are_told(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_condition(given)


def test_nesting_is_bounded() -> None:
    nested: Any = {"attribute": "Modality", "exists": True}
    for _ in range(50):
        nested = {"not": nested}
    with pytest.raises(ValueError, match="nested"):
        parse_condition(nested)


def test_explanations_name_what_was_found_and_wanted() -> None:
    text = parse_condition({"attribute": "Modality", "equals": "MR"}).explain(HEADER).text
    assert "Modality is 'CT'" in text
    assert "'MR'" in text
    both = parse_condition(
        {"all": [{"attribute": "Modality", "equals": "CT"}, {"attribute": "SliceThickness", "between": [3, 5]}]}
    ).explain(HEADER)
    assert not both.holds
    assert "SliceThickness" in both.text
    assert "Modality" not in both.text  # it held; the other one decided


# ---- laws

attributes = st.sampled_from(
    ["Modality", "SeriesDescription", "SliceThickness", "ImageType", "(0019,xx9C) GEMS_PARM_01"]
)
words = st.sampled_from(["CT", "MR", "ART", "2.5", "x"])
leaves = st.one_of(
    st.fixed_dictionaries({"attribute": attributes, "equals": words | st.floats(0, 5)}),
    st.fixed_dictionaries({"attribute": attributes, "contains": words}),
    st.fixed_dictionaries({"attribute": attributes, "one_of": st.lists(words, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"attribute": attributes, "matches": st.sampled_from(["CT", "^A", "(?i)art|pv", r"\d+"])}),
    st.fixed_dictionaries({"attribute": attributes, "exists": st.booleans()}),
    st.fixed_dictionaries({"attribute": attributes, "between": st.just([1, 3])}),
)
conditions = st.recursive(
    leaves,
    lambda inner: (
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=5,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["vr", "Value", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
tags = st.sampled_from(["00080060", "0008103E", "00180050", "00080008", "00190010", "0019109C", "00190011"])
proper = st.fixed_dictionaries({"vr": st.just("LO"), "Value": st.lists(words | st.floats(), max_size=3)})
headers = st.dictionaries(tags, proper | json_values, max_size=6)


def truth(condition: Any, header: Any) -> bool:
    return parse_condition(condition).explain(header).holds


@settings(max_examples=60, deadline=None)
@given(a=conditions, b=conditions, header=headers)
def test_de_morgan_and_double_negation(a: Any, b: Any, header: Any) -> None:
    assert truth({"not": {"all": [a, b]}}, header) == truth({"any": [{"not": a}, {"not": b}]}, header)
    assert truth({"not": {"any": [a, b]}}, header) == truth({"all": [{"not": a}, {"not": b}]}, header)
    assert truth({"not": {"not": a}}, header) == truth(a, header)
    assert truth({"all": [a, b]}, header) == (truth(a, header) and truth(b, header))
    assert truth({"any": [a, b]}, header) == (truth(a, header) or truth(b, header))


@settings(max_examples=80, deadline=None)
@given(condition=conditions, header=headers | st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_no_header_makes_an_evaluation_raise_and_each_is_explained(condition: Any, header: Any) -> None:
    explained = parse_condition(condition).explain(header)
    assert isinstance(explained.holds, bool)
    assert explained.text


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30))
def test_no_attribute_text_raises_anything_but_a_told_mistake(text: str) -> None:
    try:
        parse_attribute(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both ends are right; another kind of error is not
