"""What one MR image or frame is to elastography, by its own header: one rule per vendor and product.

Sources of the rules: the sorting rules that Resoundant publishes for its drivers (hepsort_rules, rules_mre.py) and the
vendors' private dictionaries. Evidence must be positive: an image of ordinary MR matches no rule. Where a header is
the same as that of ordinary MR (Philips magnitude), the label says that it needs a partner.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.recognition.elastography_words import (
    confidence_is_worked_in,
    is_of_other_organs,
    own_text,
    product_in,
    says_elastography,
    says_mre,
)

MAGNITUDE, PHASE, WAVE = "magnitude", "phase", "wave"
ELASTOGRAM, CONFIDENCE, COLOUR = "elastogram", "confidence", "colour"
#: One series of GE that holds phase images first and magnitude images after them.
HALVES = "raw"
#: Elastography that no pipeline reads: three motion directions, complex raw data, other moduli.
RAW_3D, COMPLEX, OTHER = "raw in three directions", "complex raw data", "other map"
COMPONENTS = (MAGNITUDE, PHASE, WAVE, ELASTOGRAM, CONFIDENCE, COLOUR)

_GE_HALVES = ("mr-touch", "fgremre")
_GE_COMPLEX = ("iqmre2d", "epimre_iron", "se_iron_mre")
_GE_EPI = "epimre"
_GE_OTHER_PREFIXES = ("PE", "FE", "SS", "STORAGE", "LOSS", "DIVERGENCE")
_SIEMENS_SEQUENCE = re.compile(r"gremr|epimr|epsem|wip_e_", re.IGNORECASE)
_SIEMENS_FIELDS = 23
_COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True)
class Label:
    """What an image is, and why. `needs_partner`: only true if a sure image of the same acquisition is there."""

    component: str
    reason: str
    needs_partner: bool = False
    is_masked: bool = False  # an elastogram from which what is not trusted was taken


@dataclass(frozen=True)
class _Facts:
    """What every rule asks of an image."""

    attributes: Mapping[str, Any]
    image_type: tuple[str, ...]
    component: str  # Complex Image Component
    is_colour: bool

    @property
    def shown_type(self) -> str:
        return "ImageType " + "\\".join(self.image_type)

    @property
    def is_derived(self) -> bool:
        return bool({"DERIVED", "SECONDARY"} & set(self.image_type))

    @property
    def text(self) -> str:
        """Everything that may name what the image shows."""
        return " ".join([*self.image_type[2:], own_text(self.attributes)])

    def has(self, *values: str) -> bool:
        return all(value in self.image_type for value in values)


def vendor_of(attributes: Mapping[str, Any]) -> str:
    """GE, Siemens, Philips, Canon; empty for others."""
    name = str(attributes.get("Manufacturer") or "").upper()
    for vendor, words in (
        ("GE", ("GE MEDICAL", "GE HEALTHCARE", "GEMS")),
        ("Siemens", ("SIEMENS",)),
        ("Philips", ("PHILIPS",)),
        ("Canon", ("CANON", "TOSHIBA")),
    ):
        if any(word in name for word in words):
            return vendor
    return ""


def sequence_of(attributes: Mapping[str, Any]) -> str:
    """GRE or SE-EPI; empty where the header does not say it."""
    keywords = ("GePulseSequenceName", "SequenceName", "PulseSequenceName")
    names = " ".join(str(attributes.get(keyword) or "") for keyword in keywords).lower()
    scanning = str(attributes.get("ScanningSequence") or "").upper().split("\\")
    image_type = str(attributes.get("ImageType") or "").upper()
    if "EP" in scanning or re.search(r"epimr|epsem|se_iron|wip_e_", names) or "M_SE" in image_type:
        return "SE-EPI"
    if "GR" in scanning or "gremr" in names or "FFE" in image_type or attributes.get("EchoPulseSequence") == "GRADIENT":
        return "GRE"
    return ""


def deserves_second_look(attributes: Mapping[str, Any]) -> bool:
    """Whether the later private elements (private.py) of this image are worth reading."""
    if _ge_sequence(attributes):
        return True
    image_type = attributes.get("ImageType") or ()
    return vendor_of(attributes) == "Philips" and "MRE" in {str(v).upper() for v in image_type}


def label_of(attributes: Mapping[str, Any], frame: int | None = None) -> Label | None:
    """What the image is; None for everything but elastography.

    attributes : of the Instance. frame : 0-based, of a multi-frame object; None for a single image.
    """
    facts = _facts(attributes, frame)
    label = _by_processing(facts)
    if label is None:
        by_vendor = {"GE": _ge, "Siemens": _siemens, "Philips": _philips, "Canon": _canon}.get(vendor_of(attributes))
        label = by_vendor(facts) if by_vendor is not None else None
    return label or _by_words(facts)


def _facts(attributes: Mapping[str, Any], frame: int | None) -> _Facts:
    values = attributes.get("ImageType") or ()
    component = attributes.get("ComplexImageComponent")
    if frame is not None:
        types, components = attributes.get("FrameTypes"), attributes.get("FrameComponents")
        if types and types[frame]:
            values = [*types[frame].split("\\"), *list(values)[4:]]
        component = (components[frame] if components else None) or component
    colour = str(attributes.get("PhotometricInterpretation") or "").upper() in _COLOURS
    return _Facts(
        attributes,
        tuple(str(value).upper().strip() for value in values),
        str(component or "").upper(),
        colour or attributes.get("SamplesPerPixel") == 3,
    )


def _map(facts: _Facts, why: str, product: str | None) -> Label:
    """A computed image, grey or in colours."""
    if facts.is_colour:
        if product == ELASTOGRAM:
            worked_in = confidence_is_worked_in(facts.text)
            return Label(COLOUR, f"{why}; in colours, a picture of stiffness", is_masked=worked_in)
        return Label(OTHER, f"{why}; in colours, {product or 'of what is not said'}")
    if product is None or product == OTHER:
        return Label(OTHER, f"{why}; {'a map that no pipeline reads' if product else 'it is not said what it shows'}")
    masked = product == ELASTOGRAM and confidence_is_worked_in(facts.text)
    return Label(product, why, is_masked=masked)


# ------------------------------------------------------------------ GE


def _ge_sequence(attributes: Mapping[str, Any]) -> str:
    name = str(attributes.get("GePulseSequenceName") or "").lower()
    names = (*_GE_HALVES, *_GE_COMPLEX, _GE_EPI)
    return name if any(known == name or (known != "mr-touch" and known in name) for known in names) else ""


def _ge(facts: _Facts) -> Label | None:
    a = facts.attributes
    name = _ge_sequence(a)
    if not name:
        return None
    why = f"GE Pulse Sequence Name is {a['GePulseSequenceName']}, {facts.shown_type}"
    product = product_in(facts.text)
    if facts.is_colour:
        return _map(facts, why, product or ELASTOGRAM)
    description = str(a.get("SeriesDescription") or "").upper()
    directions = a.get("GeDirectionsEpi") if _GE_EPI in name else a.get("GeDirectionsGre")
    is_3d = name != "mr-touch" and isinstance(directions, int) and directions > 2
    if {"MAG", "PHASE"} & set(facts.image_type) and product is None:
        component = MAGNITUDE if facts.has("MAG") else PHASE
        return Label(RAW_3D if is_3d else component, f"{why}{_directions(directions, is_3d)}")
    if not facts.is_derived:
        if is_3d:
            return Label(RAW_3D, f"{why}{_directions(directions, is_3d)}")
        if any(known in name for known in _GE_COMPLEX) or _GE_EPI in name:
            return Label(COMPLEX, f"{why}; I/Q or a research layout that is not read")
        return Label(HALVES, why)
    if description.startswith(_GE_OTHER_PREFIXES):
        return Label(OTHER, f"{why}, SeriesDescription '{a.get('SeriesDescription')}'")
    if product is None and _GE_EPI in name and facts.has("PROCESSED") and str(a.get("SeriesNumber")).endswith("1"):
        return Label(HALVES, f"{why}, Series Number {a.get('SeriesNumber')} ends in 1")
    return _map(facts, f"{why}, '{own_text(a)}'", product)


def _directions(count: Any, is_3d: bool) -> str:
    return f", {count} motion directions" if is_3d else ""


# ------------------------------------------------------------------ Siemens


def _siemens(facts: _Facts) -> Label | None:
    a = facts.attributes
    name = str(a.get("SequenceName") or a.get("PulseSequenceName") or "")
    if "ELASTO" in facts.image_type:
        why = facts.shown_type
    elif _SIEMENS_SEQUENCE.search(name):
        why = f"SequenceName is {name}, {facts.shown_type}"
    else:
        return None
    product = product_in(facts.text)
    if facts.is_colour:
        return _map(facts, why, product)
    if "WV" in facts.image_type or product == WAVE:
        return Label(WAVE, why)
    if product is not None:
        return _map(facts, f"{why}, '{own_text(a)}'", product)
    raw = {"MAGNITUDE": MAGNITUDE, "PHASE": PHASE}.get(facts.component)
    raw = raw or (PHASE if "P" in facts.image_type else MAGNITUDE if "M" in facts.image_type else None)
    if raw is None:
        return Label(OTHER, f"{why}; neither magnitude (M) nor phase (P)")
    if facts.component:
        why += f", Complex Image Component {facts.component}"
    if "DERIVED" in facts.image_type and "ELASTO" not in facts.image_type:
        return Label(OTHER, f"{why}; computed, and it is not said what it shows")
    fields = str(a.get("SiemensMreFields") or "").split("_")
    if "WIP" in name.upper() and len(fields) == _SIEMENS_FIELDS and fields[-1].isdigit() and int(fields[-1]) > 1:
        return Label(RAW_3D, f"{why}, {fields[-1]} motion directions")
    return Label(raw, why)


# ------------------------------------------------------------------ Philips, Canon


def _philips(facts: _Facts) -> Label | None:
    a = facts.attributes
    positions = a.get("NumberOfTemporalPositions")
    is_3d = isinstance(positions, int) and positions > 1
    product = product_in(facts.text)
    if facts.has("ORIGINAL") and not facts.is_colour:
        if facts.has("P", "MRE"):
            return Label(RAW_3D if is_3d else PHASE, facts.shown_type + (f", {positions} temporal positions" * is_3d))
        of_scan = [value for value in facts.image_type if value in ("M_SE", "FFE", "M_FFE", "MRE")]
        if facts.has("M") and of_scan and product is None:
            said = says_elastography(a)
            why = f"{facts.shown_type}{', ' + said if said else ''}"
            return Label(RAW_3D if is_3d else MAGNITUDE, why, needs_partner=not said and "MRE" not in of_scan)
    if product is not None and (facts.has("MRE") or says_elastography(a) or "MRE" in own_text(a).upper()):
        return _map(facts, f"{facts.shown_type}, '{own_text(a)}'", product)
    return None


def _canon(facts: _Facts) -> Label | None:
    a = facts.attributes
    comment = str(a.get("ImageComments") or "").lower().replace(" ", "")
    said = says_elastography(a) or says_mre(a)
    why = f"ImageComments is '{a.get('ImageComments')}'" + (f", {said}" if said else "")
    if "stiffness" in comment or "confidence" in comment or "wave" in comment:
        if "wave" in comment and not said:
            return None
        return _map(facts, why, product_in(comment))
    raw = PHASE if "phasediff" in comment else MAGNITUDE if "magnitude" in comment else None
    return Label(raw, why, needs_partner=not said) if raw is not None and not facts.is_colour else None


# ------------------------------------------------------------------ any vendor


def _by_processing(facts: _Facts) -> Label | None:
    """Multi-model direct inversion, on the scanner or beside it, names itself in Image Type."""
    if not any(value.startswith("MMDI") for value in facts.image_type):
        return None
    for value, component in (("STIFFNESS", ELASTOGRAM), ("CONFIDENCE", CONFIDENCE)):
        if value in facts.image_type:
            return _map(facts, facts.shown_type, component)
    for value, component in (("MAGRMS", MAGNITUDE), ("PHSDIFFZ", PHASE)):
        if value in facts.image_type:
            return Label(component, facts.shown_type)
    return Label(OTHER, f"{facts.shown_type}; a map that no pipeline reads")


def _by_words(facts: _Facts) -> Label | None:
    """Computed images whose private elements are gone: the words must name elastography or stiffness."""
    a = facts.attributes
    product = product_in(own_text(a)) or product_in(" ".join(facts.image_type[2:]))
    if product is None or is_of_other_organs(a):
        return None
    said = says_elastography(a) or says_mre(a)
    is_computed = facts.is_derived or facts.is_colour or str(a.get("ImageComments") or "").lower() == "stiffness"
    if not is_computed or (product != ELASTOGRAM and not said):
        return None
    return _map(facts, said or f"SeriesDescription and ImageComments say '{own_text(a)}'", product)
