"""What a page is made of. Places in pixels from the top left corner; colours sRGB, 0 to 255."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

BACKGROUND: Colour = (14, 16, 20)
INK: Colour = (238, 238, 238)
FAINT: Colour = (160, 168, 178)
WARNING: Colour = (255, 191, 0)


class Rect(NamedTuple):
    """A place on the page."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def overlaps(self, other: "Rect") -> bool:
        """Whether the two have an area in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True)
class Text:
    """One line of text."""

    x: float  # of its left end, middle or right end
    baseline: float
    text: str
    size: int  # of the font, pixels
    colour: Colour = INK
    bold: bool = False
    align: Literal["left", "middle", "right"] = "left"
    halo: bool = False  # dark rim, over pictures


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    place: Rect
    colour: Colour


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: NDArray[np.float64]  # [point, (x, y)]
    colour: Colour
    width: float


@dataclass(frozen=True)
class Picture:
    """An image, stretched to its place."""

    place: Rect
    pixels: NDArray[np.uint8]  # [row, column, 3]


Item = Text | Box | Line | Picture


@dataclass(frozen=True)
class Page:
    """A whole page; later items lie over earlier ones."""

    width: int
    height: int
    title: str
    items: tuple[Item, ...]
    shown: tuple[int, ...] = ()  # indices of the source images that are on it
    verdict: str = ""  # the answer in a word, for lists of series
    may_identify: bool = False  # whether a picture may carry names that the source's device wrote into it
