"""Numbers as DICOM's Decimal String holds them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.encoding.decimals import LONGEST, decimal_string


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.0, "5"), (0.1, "0.1"), (9.999999999999998, "10"), (-1.23456789012345e-300, "-1.23456789e-300")],
)
def test_numbers_that_are_easily_too_long(value: float, text: str) -> None:
    assert decimal_string(value) == text


@given(st.floats(-1e300, 1e300, allow_subnormal=False))
def test_any_number_has_at_most_sixteen_characters_and_is_nearly_itself(value: float) -> None:
    text = decimal_string(value)
    assert len(text) <= LONGEST
    assert float(text) == pytest.approx(value, rel=1e-8, abs=0)
