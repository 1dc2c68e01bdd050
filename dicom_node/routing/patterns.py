"""Which regular expressions a rule may hold: those whose time is bounded, whatever text a header brings.

Python's engine tries again at every choice that a pattern leaves open. The choices are counted on the parsed
pattern, so that a rule is refused when it is written and not when a study hangs in it.
"""

import math
import re
from importlib import import_module
from typing import Any

MAX_PATTERN_CHARACTERS = 256
#: Of a value, so many characters are tried. A description (VR LO) has 64 at most.
MAX_MATCHED_CHARACTERS = 128
#: What one trial may cost at worst, in steps of the engine of about 0.1 microseconds.
MAX_STEPS = 12_000_000
MAX_CHOICES = 1024  # of all that is optional, bounded or an alternative
_OPEN_FROM = 32  # a repeat that may go on for so long is as good as open

_parser = import_module("re._parser")
_constants = import_module("re._constants")
_REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}


class _Refused(ValueError):
    """Why a pattern may not be used."""


def pattern_problem(pattern: str) -> str | None:
    """What is wrong with a pattern, in words; None if it may be used."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"the pattern is longer than {MAX_PATTERN_CHARACTERS} characters"
    try:
        re.compile(pattern)
        repeats, choices = _weigh(_parser.parse(pattern), is_repeated=False)
    except _Refused as refused:
        return f"the pattern {pattern!r} {refused}, which could take for ever; write it simpler"
    except (re.error, RecursionError, OverflowError) as error:
        return f"{pattern!r} is no regular expression: {error}"
    # From every start, every way to share the text among the open repeats, for every choice.
    steps = math.comb(MAX_MATCHED_CHARACTERS + repeats, repeats + 1) * choices
    if choices > MAX_CHOICES or steps > MAX_STEPS:
        what = f"{repeats} open repeats such as .* and {choices} choices"
        return f"the pattern {pattern!r} has {what}, which could take for ever; write it simpler"
    return None


def _weigh(parsed: Any, *, is_repeated: bool) -> tuple[int, int]:
    """(open repeats in a row, choices) of a parsed pattern. Raises _Refused."""
    repeats, choices = 0, 1
    for operation, argument in parsed:
        if operation in _REPEATS:
            found = _weigh_repeat(argument, is_repeated)
        elif operation is _constants.BRANCH:
            if is_repeated:
                raise _Refused("has an alternative inside a repeated group")
            parts = [_weigh(part, is_repeated=False) for part in argument[1]]
            found = max(r for r, _ in parts), sum(c for _, c in parts)
        elif operation is _constants.SUBPATTERN:
            found = _weigh(argument[-1], is_repeated=is_repeated)
        elif operation is _constants.ATOMIC_GROUP:
            found = _weigh(argument, is_repeated=is_repeated)
        elif operation in (_constants.ASSERT, _constants.ASSERT_NOT):
            found = _weigh(argument[1], is_repeated=is_repeated)
        elif operation in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
            raise _Refused("refers back to a group")
        else:
            found = 0, 1
        repeats, choices = repeats + found[0], choices * found[1]
    return repeats, choices


def _weigh_repeat(argument: Any, is_repeated: bool) -> tuple[int, int]:
    least, most, body = argument
    if is_repeated and least != most:
        raise _Refused("repeats a repetition")
    if most is _constants.MAXREPEAT or most - least >= _OPEN_FROM:
        _weigh(body, is_repeated=True)
        return 1, 1
    repeats, choices = _weigh(body, is_repeated=is_repeated or most > 1)
    return repeats, choices + int(most - least)
