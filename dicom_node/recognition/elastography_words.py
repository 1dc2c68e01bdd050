"""What texts of a header say of MR elastography: what a map shows, the vibration's frequency. Words, no verdicts."""

import re
from collections.abc import Mapping
from typing import Any

#: Words that name what a computed image shows, in the order in which they are tried; "other" is used by no pipeline.
_PRODUCTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (product, re.compile(pattern, re.IGNORECASE))
    for product, pattern in (
        (
            "other",
            r"storage|(?<![a-z])loss(?![a-z])|attenuation|divergence|volumetric|strain|curl|octahedral|laplac"
            r"|damping|phase.?angle",
        ),
        ("elastogram", r"stiff|elastogram|shear.?modul|(?<![a-z])kpa(?![a-z])|(?<![a-z])cmoe(?![a-z])"),
        ("confidence", r"(?<![a-z])conf(?:idence)?(?![a-z])|confmap"),
        ("wave", r"(?<![a-z])waves?(?![a-z])|wave.?(?:image|field|movie)|(?<![a-z])wv(?![a-z])"),
    )
)
_CONFIDENCE_WORKED_IN = re.compile(
    r"(?<![a-z])conf|mask|overlay|(?<![a-z])cmoe(?![a-z])|(?<!\d)95(?!\d)", re.IGNORECASE
)
#: Says elastography beyond doubt. "MRE" alone does not: MR enterography is called so, too, but not of the liver.
_ELASTOGRAPHY = re.compile(r"elastogra|elasto(?![a-z])|mr.?touch|(?<![a-z])(?:gre|se.?epi|epi)_?mre(?![a-z])", re.I)
_MRE_OF_LIVER = re.compile(
    r"(?<![a-z])mre(?![a-z]).*(?:liver|leber|hepa|\d ?hz)|(?:liver|leber|hepa).*(?<![a-z])mre(?![a-z])", re.I
)
_MRE = re.compile(r"(?<![a-z])mre(?![a-z])", re.IGNORECASE)
_OTHER_STIFFNESS = re.compile(r"aort|arter|pulse.?wave|pwv|cardi|myocard", re.IGNORECASE)
_HZ = r"(\d{2,3}(?:[.,]\d+)?)\s*hz"
_FREQUENCY = re.compile(r"(?<![\d.,])" + _HZ, re.IGNORECASE)
_DRIVER = re.compile(r"(?:driver|actuator|vibration|resoundant)[^0-9]{0,16}" + _HZ, re.IGNORECASE)
#: Of a vibrated liver; anything else that is given in Hz is a bandwidth or a heart rate.
_PLAUSIBLE_HZ = (20.0, 120.0)


def own_text(attributes: Mapping[str, Any]) -> str:
    """Series Description without the Protocol Name in it, and Image Comments.

    A site may well call its protocol "liver stiffness"; only what stands beside that tells the series apart. Where both
    are the same, the text counts for computed images only.
    """
    description, protocol = str(attributes.get("SeriesDescription") or ""), str(attributes.get("ProtocolName") or "")
    if protocol and protocol.lower() != description.lower():
        description = re.sub(re.escape(protocol), " ", description, flags=re.IGNORECASE)
    elif protocol and "DERIVED" not in (attributes.get("ImageType") or ()):
        description = ""
    return f"{description} {attributes.get('ImageComments') or ''}".strip()


def product_in(text: str) -> str | None:
    """elastogram, confidence, wave, other; None where the text names none."""
    return next((product for product, pattern in _PRODUCTS if pattern.search(text)), None)


def confidence_is_worked_in(text: str) -> bool:
    """Whether an elastogram's text says that what is not trusted was taken out or hatched."""
    return _CONFIDENCE_WORKED_IN.search(text) is not None


def says_elastography(attributes: Mapping[str, Any]) -> str:
    """The text that says elastography beyond doubt; empty if none does."""
    for keyword in ("SeriesDescription", "ProtocolName", "ImageComments", "SequenceName"):
        text = str(attributes.get(keyword) or "")
        if _ELASTOGRAPHY.search(text) or _MRE_OF_LIVER.search(text):
            return f"{keyword} says '{text}'"
    return ""


def says_mre(attributes: Mapping[str, Any]) -> str:
    """The text with the word MRE, which needs a second word to mean elastography; empty if none."""
    for keyword in ("SeriesDescription", "ProtocolName", "ImageComments"):
        text = str(attributes.get(keyword) or "")
        if _MRE.search(text):
            return f"{keyword} says '{text}'"
    return ""


def is_of_other_organs(attributes: Mapping[str, Any]) -> bool:
    """Whether "stiffness" is meant of vessels or the heart."""
    return (
        _OTHER_STIFFNESS.search(f"{attributes.get('SeriesDescription')} {attributes.get('ProtocolName')}") is not None
    )


def stated_frequencies_hz(attributes: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(frequency that the sequence encodes, frequency that the driver vibrates at), where texts state them."""
    sequence = driver = None
    for keyword in ("SeriesDescription", "ProtocolName", "SequenceName", "ImageComments"):
        text = str(attributes.get(keyword) or "")
        said = _DRIVER.search(text)
        if said is not None:
            driver = driver or _plausible(said[1])
            text = text.replace(said[0], " ")
        for match in _FREQUENCY.finditer(text):
            sequence = sequence or _plausible(match[1])
    return sequence, driver


def _plausible(text: str) -> float | None:
    hz = float(text.replace(",", "."))
    return hz if _PLAUSIBLE_HZ[0] <= hz <= _PLAUSIBLE_HZ[1] else None
