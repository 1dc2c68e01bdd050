"""Regular expressions of rules: what people write is let in; what could hang the node is not."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.routing.patterns import MAX_MATCHED_CHARACTERS, pattern_problem


@pytest.mark.parametrize(
    "pattern",
    [
        "(?i)art|动脉", r"^liver.*art", r"\bPVP?\b", r"(late|early)?\s*art(erial)?", r"(?i)^(art|hap|ap)[ _-]?\d*",
        r"\d{1,3}\s*min", "[A-Z]+", r"^(?!.*bone).*art", r"(abc){2}", r"ab{2,4}c", r".*liver.*3.*", "",
    ],
)  # fmt: skip
def test_what_people_write_is_let_in(pattern: str) -> None:
    assert pattern_problem(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$", "(a|a)*$", "(a|ab)*$", "([a-z]+)*x", r"(\w+\s?)*$", "((a+))+$", "(a?){40}b", "(?:a{1,9}){1,9}$",
        "(.*)(.*)(.*)(.*)x", "a.a+?[ab]*a*a{0,5}", "a*a*a*a*a*b", "a?" * 30 + "a" * 30, "(a|b|ab)" * 20, r"(a)\1",
        "(?P<n>a)(?P=n)", "(a{0,99})*", "x" * 300,
    ],
)  # fmt: skip
def test_what_could_take_for_ever_is_refused(pattern: str) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize("pattern", ["(", "[a", "*a", "(?P<a", "a{2,1}"])
def test_what_is_no_pattern_is_told(pattern: str) -> None:
    assert "is no regular expression" in str(pattern_problem(pattern))


pieces = st.sampled_from(
    ["a", "b", ".", r"\w", "a*", ".*", "a+?", "a?", "a{0,5}", "(a|b)", "(a|ab)", "(ab)?", "[ab]*", "^", "$", "(?=a*)"]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=14).map("".join))
def test_every_pattern_that_is_let_in_ends_soon(pattern: str) -> None:
    if pattern_problem(pattern) is not None:
        return
    compiled = re.compile(pattern + "\\Z" if not pattern.endswith("$") else pattern)
    began = time.process_time()
    for text in (
        "a" * MAX_MATCHED_CHARACTERS,
        "ab" * (MAX_MATCHED_CHARACTERS // 2),
        "a" * (MAX_MATCHED_CHARACTERS - 1) + "!",
    ):
        compiled.search(text)
    assert time.process_time() - began < 12, pattern  # three trials, on a machine that may be slow
