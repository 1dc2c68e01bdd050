"""Conditions of rules: tried on a header, and explained. No code is run; every comparison is one of this table."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dicom_node.routing.attributes import Attribute, parse_attribute
from dicom_node.routing.patterns import MAX_MATCHED_CHARACTERS, pattern_problem

MAX_DEPTH = 12


@dataclass(frozen=True)
class Explained:
    """A verdict and, in words, how it came about."""

    holds: bool
    text: str


@dataclass(frozen=True)
class Comparison:
    """One attribute against one wish."""

    attribute: Attribute
    operator: str
    wanted: Any

    def explain(self, header: Mapping[str, Any]) -> Explained:
        """Try it on a header (DICOM JSON model). Never raises for what a header may hold."""
        values = self.attribute.values(header)
        holds = self._test(values)
        found = "is absent" if values is None else f"is {_shown(values)}" if values else "is empty"
        return Explained(
            holds, f"{self.attribute.text} {found}, wanted {self.operator} {_wish(self.wanted)}: {_word(holds)}"
        )

    def _test(self, values: tuple[Any, ...] | None) -> bool:
        if self.operator == "exists":
            return (values is not None) == self.wanted
        return any(_OPERATORS[self.operator](value, self) for value in values or ())

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The compiled pattern of `matches`."""
        return re.compile(str(self.wanted))


@dataclass(frozen=True)
class Combination:
    """all, any or not of other conditions."""

    kind: str
    parts: tuple["Condition", ...]

    def explain(self, header: Mapping[str, Any]) -> Explained:
        """Try every part; the text names those that decided."""
        tried = [part.explain(header) for part in self.parts]
        if self.kind == "not":
            return Explained(not tried[0].holds, f"not ({tried[0].text})")
        holds = all(t.holds for t in tried) if self.kind == "all" else any(t.holds for t in tried)
        decisive = [t.text for t in tried if t.holds == holds] or [t.text for t in tried]
        return Explained(holds, "; ".join(decisive))


Condition = Comparison | Combination


def parse_condition(given: Any, depth: int = 0) -> Condition:
    """A condition from plain YAML values.

    {all: [..]}, {any: [..]}, {not: condition} or {attribute: A, equals|one_of|contains|matches|between|exists: X}.
    Raises ValueError saying what is wrong.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"conditions are nested more than {MAX_DEPTH} deep")
    if not isinstance(given, Mapping) or not given:
        raise ValueError("a condition is {attribute: ..., equals: ...} or {all|any|not: ...}")
    keys = set(given)
    combined = keys & {"all", "any", "not"}
    if combined:
        if len(keys) != 1:
            raise ValueError(f"{sorted(combined)[0]!r} stands alone; found beside it {sorted(keys - combined)}")
        kind = combined.pop()
        if kind == "not":
            return Combination("not", (parse_condition(given["not"], depth + 1),))
        parts = given[kind]
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise ValueError(f"{kind!r} needs a list of conditions")
        return Combination(kind, tuple(parse_condition(part, depth + 1) for part in parts))
    return _comparison(given, keys)


def _comparison(given: Mapping[str, Any], keys: set[str]) -> Comparison:
    if "attribute" not in keys:
        raise ValueError(f"a comparison needs 'attribute'; found {sorted(map(str, keys))}")
    operators = keys - {"attribute"}
    if len(operators) != 1 or not operators <= set(_WISHES):
        raise ValueError(
            f"a comparison needs one of {', '.join(_WISHES)}; found {sorted(map(str, operators)) or 'none'}"
        )
    operator = operators.pop()
    attribute = parse_attribute(str(given["attribute"]))
    wanted = given[operator]
    if problem := _WISHES[operator](wanted):
        raise ValueError(f"{attribute.text} {operator}: {problem}")
    return Comparison(attribute, operator, wanted)


# ---- what may be wished for: None, or what is wrong with it


def _scalar(wanted: Any) -> str | None:
    is_scalar = isinstance(wanted, str | int | float) and not isinstance(wanted, bool)
    return None if is_scalar else f"a text or a number is needed, found {wanted!r}"


def _scalars(wanted: Any) -> str | None:
    if not isinstance(wanted, list) or not wanted:
        return f"a list is needed, found {wanted!r}"
    return next((problem for problem in map(_scalar, wanted) if problem), None)


def _text(wanted: Any) -> str | None:
    return None if isinstance(wanted, str) and wanted else f"a text is needed, found {wanted!r}"


def _pattern(wanted: Any) -> str | None:
    if problem := _text(wanted):
        return problem
    return pattern_problem(wanted)


def _interval(wanted: Any) -> str | None:
    numbers = isinstance(wanted, list) and len(wanted) == 2 and all(_number(item) is not None for item in wanted)
    if not numbers or float(wanted[0]) > float(wanted[1]):
        return f"[lowest, highest] is needed, found {wanted!r}"
    return None


def _boolean(wanted: Any) -> str | None:
    return None if isinstance(wanted, bool) else f"true or false is needed, found {wanted!r}"


_WISHES: dict[str, Callable[[Any], str | None]] = {
    "equals": _scalar,
    "one_of": _scalars,
    "contains": _text,
    "matches": _pattern,
    "between": _interval,
    "exists": _boolean,
}


# ---- one value against the wish; an attribute with several values satisfies it with any of them


def _equal(value: Any, wanted: Any) -> bool:
    number, wanted_number = _number(value), _number(wanted)
    if number is not None and wanted_number is not None:
        return number == wanted_number
    return str(value).strip() == str(wanted).strip()


def _number(value: Any) -> float | None:
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _between(value: Any, comparison: Comparison) -> bool:
    number = _number(value)
    return number is not None and float(comparison.wanted[0]) <= number <= float(comparison.wanted[1])


_OPERATORS: dict[str, Callable[[Any, Comparison], bool]] = {
    "equals": lambda value, c: _equal(value, c.wanted),
    "one_of": lambda value, c: any(_equal(value, wanted) for wanted in c.wanted),
    "contains": lambda value, c: str(c.wanted).casefold() in str(value).casefold(),
    "matches": lambda value, c: c.pattern.search(str(value)[:MAX_MATCHED_CHARACTERS]) is not None,
    "between": _between,
}


def _shown(values: tuple[Any, ...]) -> str:
    text = "\\".join(str(value) for value in values)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _wish(wanted: Any) -> str:
    return repr(wanted) if isinstance(wanted, str) else str(wanted)


def _word(holds: bool) -> str:
    return "yes" if holds else "no"
