"""Every coded concept that the node writes: scheme, code, meaning, and where it comes from. One table.

Pipelines speak in keys ("long_axis"); only this module knows what they are in DICOM. Codes marked PS3.16 are those of
its context groups as carried by pydicom's dictionary of PS3.16. Where we know no verified public code for an entity
(HCC, FNH ...), it has a code of our own scheme and, beside it, the nearest public one in `generic`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.sr.coding import Code

from dicom_node.errors import NodeError

#: Designator of our own codes; identified by a UID in every object (PS3.3 C.12.1.1, Coding Scheme Identification).
PRIVATE_SCHEME = "99DICOMNODE"
PRIVATE_SCHEME_UID = "2.25.289871523960153437116803297384260513147"
PRIVATE_SCHEME_NAME = "dicom-node concepts without a public code"


class UnknownConcept(NodeError):
    """A pipeline used a concept or unit that has no entry in the table of concepts; the entry must be added."""


@dataclass(frozen=True)
class Concept:
    """One row of the table."""

    scheme: str
    value: str
    meaning: str  # at most 64 characters, plain ASCII; what a viewer prints
    source: str
    generic: str | None = None  # key of the nearest public concept, written beside a private one
    decimals: int = 1  # of a number with this name

    @property
    def code(self) -> Code:
        """The concept as pydicom and highdicom take it."""
        return Code(self.value, self.scheme, self.meaning)


def _private(value: str, meaning: str, generic: str | None = None, decimals: int = 1) -> Concept:
    return Concept(PRIVATE_SCHEME, value, meaning, "ours", generic, decimals)


_TABLE: dict[str, Concept] = {
    # what and where
    "lesion": Concept("SCT", "52988006", "Lesion", "PS3.16 CID 7151"),
    "liver": Concept("SCT", "10200004", "Liver", "PS3.16 CID 7151"),
    "spleen": Concept("SCT", "78961009", "Spleen", "PS3.16 CID 7151"),
    "cyst": Concept("SCT", "367643001", "Cyst", "PS3.16 CID 7151"),
    "neoplasm_primary": Concept("SCT", "372087000", "Neoplasm, Primary", "PS3.16 CID 7151"),
    "neoplasm_secondary": Concept("SCT", "14799000", "Neoplasm, Secondary", "PS3.16 CID 7151"),
    "hemangioma": Concept("SCT", "400210000", "Hemangioma", "PS3.16 CID 6030"),
    "anatomical_structure": Concept("SCT", "91723000", "Anatomical Structure", "PS3.16 CID 7150"),
    "abnormal_structure": Concept("SCT", "49755003", "Morphologically Abnormal Structure", "PS3.16 CID 7150"),
    # numbers
    "long_axis": Concept("SCT", "103339001", "Long axis", "PS3.16 CID 7469"),
    "short_axis": Concept("SCT", "103340004", "Short axis", "PS3.16 CID 7469"),
    "volume": Concept("SCT", "118565006", "Volume", "PS3.16 CID 7469", decimals=0),
    "liver_volume": Concept("SCT", "118565006", "Volume", "PS3.16 CID 7469; the finding site says of what", decimals=0),
    "area": Concept("SCT", "42798000", "Area", "PS3.16 CID 7469"),
    "malignant_probability": Concept("DCM", "111047", "Probability of cancer", "PS3.16 CID 6048"),
    "certainty": Concept("DCM", "111012", "Certainty of Finding", "PS3.16 CID 6048"),
    "lesion_count": Concept("SCT", "246206008", "Number of lesions", "PS3.16 SNOMED CT list", decimals=0),
    "images_not_analysed": _private("IMAGES_LEFT_OUT", "Images not analysed", decimals=0),
    "elasticity": Concept("DCM", "110830", "Elasticity", "PS3.16 CID 12308", decimals=2),
    # statements
    "presence": _private("PRESENCE", "Presence"),  # written with the finding's own concept as name
    "present": Concept("SCT", "52101004", "Present", "PS3.16 CID 240"),
    "absent": Concept("SCT", "272519000", "Absent", "PS3.16 CID 240"),
    "malignancy": _private("MALIGNANCY", "Malignancy as assessed by the algorithm"),
    "malignant": Concept("SCT", "21594007", "Malignant", "PS3.16 CID 6063"),
    "benign": Concept("SCT", "30807003", "Benign", "PS3.16 CID 6063"),
    "undetermined": Concept("SCT", "373068000", "Undetermined", "PS3.16 CID 230"),
    "lesion_class": Concept("DCM", "111023", "Differential Diagnosis/Impression", "PS3.16 Annex D"),
    "HCC": _private("HCC", "Hepatocellular carcinoma", "neoplasm_primary"),
    "ICC": _private("ICC", "Intrahepatic cholangiocarcinoma", "neoplasm_primary"),
    "MET": _private("MET", "Liver metastasis", "neoplasm_secondary"),
    "FNH": _private("FNH", "Focal nodular hyperplasia"),
    "HEM": _private("HEM", "Liver hemangioma", "hemangioma"),
    "CYST": _private("CYST", "Liver cyst", "cyst"),
    # quality
    "quality": Concept("DCM", "111050", "Quality Assessment", "PS3.16 Annex D"),
    "diagnostic": Concept("RADLEX", "RID12", "Diagnostic quality", "PS3.16 CID 7036"),
    "limited": Concept("RADLEX", "RID13", "Limited quality", "PS3.16 CID 7036"),
    "non_diagnostic": Concept("RADLEX", "RID14", "Non-diagnostic quality", "PS3.16 CID 7036"),
    "analysis": Concept("DCM", "111004", "Analysis Performed", "PS3.16 Annex D"),
    "not_analysed": _private("NOT_ANALYSED", "Not analysed"),
    # words about the document itself
    "comment": Concept("DCM", "121106", "Comment", "PS3.16 CID 12101"),
    "artificial_intelligence": Concept("DCM", "123110", "Artificial Intelligence", "PS3.16 CID 7162"),
    "segmentation": Concept("DCM", "113076", "Segmentation", "PS3.16 CID 7203"),
    "source_image": Concept("DCM", "121322", "Source image for image processing operation", "PS3.16 CID 7202"),
    "device": Concept("DCM", "121007", "Device", "PS3.16 CID 270"),
    "processing_equipment": Concept("DCM", "109102", "Processing Equipment", "PS3.16 CID 7005"),
    "acquisition_equipment": Concept("DCM", "109101", "Acquisition Equipment", "PS3.16 CID 7005"),
    "imaging_measurement_report": Concept("DCM", "126000", "Imaging Measurement Report", "PS3.16 CID 7021"),
    "CT": Concept("LN", "25045-6", "CT unspecified body region", "PS3.16 CID 100"),
    "MR": Concept("LN", "25056-3", "MR unspecified body region", "PS3.16 CID 100"),
    "imaging_procedure": Concept("SCT", "363679005", "Imaging procedure", "PS3.16 CID 100"),
}

#: Every concept by key.
CONCEPTS: Mapping[str, Concept] = MappingProxyType(_TABLE)

#: UCUM units by the code that `Measurement.unit` carries. Those in braces are UCUM annotations: a count of the thing.
UNITS: Mapping[str, Code] = MappingProxyType(
    {
        code: Code(code, "UCUM", meaning)
        for code, meaning in {
            "mm": "millimeter",
            "mm2": "square millimeter",
            "mm3": "cubic millimeter",
            "cm3": "cubic centimeter",
            "mL": "milliliter",
            "%": "Percent",
            "1": "no units",
            "{lesions}": "lesions",
            "{images}": "images",
            "kPa": "kilopascal",
            "m/s": "meter per second",
            "ms": "millisecond",
            "dB/(cm.MHz)": "decibel per centimeter and megahertz",
            "[hnsf'U]": "Hounsfield unit",
        }.items()
    }
)

#: mm3 in one unit of volume.
CUBIC_MILLIMETRES: Mapping[str, float] = MappingProxyType({"mm3": 1.0, "cm3": 1000.0, "mL": 1000.0})


def concept(key: str) -> Concept:
    """The coded concept of a key; UnknownConcept when the table has none."""
    found = CONCEPTS.get(key)
    if found is None:
        raise UnknownConcept(f"Concept {key!r} has no code; add it to the table in {__name__}.")
    return found


def unit(code: str) -> Code:
    """The UCUM unit of that code; UnknownConcept when the table has none."""
    found = UNITS.get(code)
    if found is None:
        raise UnknownConcept(f"Unit {code!r} is not among the UCUM units in {__name__}; add it there.")
    return found
