"""The typeface of pictures and documents: DejaVu Sans, which matplotlib brings along (free licence), in two weights.

Nothing is read from the system, so that every machine draws the same page. Numbers are written in ASCII, with a hyphen
for minus: programs that take text out of a PDF may lose other signs.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

FILES = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}


@cache
def font_file(bold: bool) -> Path:
    """Path of the font. matplotlib itself is not imported."""
    package = find_spec("matplotlib")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("matplotlib, whose fonts are used, is not installed")
    return Path(package.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / FILES[bold]


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font for drawing; `size` in pixels."""
    return ImageFont.truetype(str(font_file(bold)), size, layout_engine=ImageFont.Layout.BASIC)


def text_width(text: str, size: int, bold: bool = False) -> float:
    """Length of a text, pixels."""
    return float(font(size, bold).getlength(text))


def wrapped(text: str, size: int, width: float, bold: bool = False) -> list[str]:
    """The text in lines that are at most `width` pixels long; a single longer word is cut."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if text_width(longer, size, bold) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = fitted(word, size, width, bold)
    return [*lines, line] if line else lines


def fitted(text: str, size: int, width: float, bold: bool = False) -> str:
    """The text, or as much of it as is at most `width` pixels long, with an ellipsis."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(f"{text}…", size, bold) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
