"""Working hours of a destination: windows of local time in which it takes results. Pure: the clock is given."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:(?P<days>[a-z, -]+?)\s+)?(?P<begin>\d\d:\d\d)\s*-\s*(?P<end>\d\d:\d\d)", re.IGNORECASE)
_FORM = "'19:00-06:00' or 'mon-fri 19:00-06:00' is needed (days: mon tue wed thu fri sat sun; 24 hours: 00:00-24:00)"


@dataclass(frozen=True)
class Window:
    """From `begin` to `end`, minutes after midnight; an end that is not after the begin is on the next day."""

    days: frozenset[int]  # on which it begins, 0 is Monday
    begin: int
    end: int

    @property
    def length_minutes(self) -> int:
        """How long it lasts."""
        return (self.end - self.begin - 1) % 1440 + 1


@dataclass(frozen=True)
class Hours:
    """Several windows: open in any of them."""

    windows: tuple[Window, ...]

    def opens_at(self, at: datetime, zone: tzinfo | None = None) -> datetime | None:
        """None when open at `at` (which knows its zone), else the moment at which it opens next.

        zone : whose wall clock counts; None: the machine's.
        """
        wall = at.astimezone(zone).replace(tzinfo=None)
        midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        next_begin: datetime | None = None
        for day in range(-1, 8):
            on = midnight + timedelta(days=day)
            for window in self.windows:
                if on.weekday() not in window.days:
                    continue
                begin = on + timedelta(minutes=window.begin)
                if begin <= wall < begin + timedelta(minutes=window.length_minutes):
                    return None
                if begin > wall and (next_begin is None or begin < next_begin):
                    next_begin = begin
        assert next_begin is not None  # noqa: S101 - every window has a day
        return next_begin.replace(tzinfo=zone) if zone is not None else next_begin.astimezone()


def parse_window(text: str) -> Window:
    """`[DAYS] HH:MM-HH:MM`, days as a list, a range or both: "mon-thu,sat". Raises ValueError: what is needed."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(_FORM)
    begin, end = _minutes(found["begin"]), _minutes(found["end"])
    if begin == 1440 or begin == end:
        raise ValueError(_FORM)
    days = frozenset(range(7)) if found["days"] is None else _days(found["days"])
    return Window(days, begin, end)


def _minutes(clock: str) -> int:
    hours, minutes = int(clock[:2]), int(clock[3:])
    if minutes > 59 or hours * 60 + minutes > 1440:
        raise ValueError(_FORM)
    return hours * 60 + minutes


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in re.split(r"\s*,\s*", text.strip().lower()):
        ends = re.split(r"\s*-\s*", part)
        if len(ends) > 2 or not set(ends) <= set(DAYS):
            raise ValueError(_FORM)
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        found.update(day % 7 for day in range(first, last + 1 if last >= first else last + 8))
    return frozenset(found)
