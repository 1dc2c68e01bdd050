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
    generic: str | None = None  # key of the nearest public concept, stated beside a private value of a statement
    decimals: int = 1  # of a number with this name

    @property
    def code(self) -> Code:
        """The concept as pydicom and highdicom take it."""
        return Code(self.value, self.scheme, self.meaning)


def _private(value: str, meaning: str, generic: str | None = None, decimals: int = 1) -> Concept:
    return Concept(PRIVATE_SCHEME, value, meaning, "ours", generic, decimals)


def _item(value: str, meaning: str) -> Concept:
    """Name of a content item that templates fix by itself rather than by a context group."""
    return Concept("DCM", value, meaning, "PS3.16 Annex D")


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
    "spatial_concept": Concept("SCT", "309825002", "Spatial and Relational Concept", "PS3.16 CID 7150"),
    "measured_area": Concept("DCM", "111099", "Selected region", "PS3.16 CID 6016; the Segment's label says of what"),
    "abnormal_structure": Concept("SCT", "49755003", "Morphologically Abnormal Structure", "PS3.16 CID 7150"),
    # numbers
    "long_axis": Concept("SCT", "103339001", "Long axis", "PS3.16 CID 7469"),
    "short_axis": Concept("SCT", "103340004", "Short axis", "PS3.16 CID 7469"),
    "diameter": Concept("SCT", "81827009", "Diameter", "PS3.16 CID 7469"),
    "volume": Concept("SCT", "118565006", "Volume", "PS3.16 CID 7469", decimals=0),
    "liver_volume": Concept("SCT", "118565006", "Volume", "PS3.16 CID 7469; the finding site says of what", decimals=0),
    "area": Concept("SCT", "42798000", "Area", "PS3.16 CID 7469"),
    "malignant_probability": Concept("DCM", "111047", "Probability of cancer", "PS3.16 CID 6048"),
    "certainty": Concept("DCM", "111012", "Certainty of Finding", "PS3.16 CID 6048"),
    "lesion_count": Concept("SCT", "246206008", "Number of lesions", "PS3.16 SNOMED CT list", decimals=0),
    "images_analysed": _private("IMAGES_ANALYSED", "Images analysed", decimals=0),
    "images_not_analysed": _private("IMAGES_LEFT_OUT", "Images not analysed", decimals=0),
    "image_number": _private("IMAGE_NUMBER", "Image number", decimals=0),
    # numbers of elastography; what moves at 60 Hz (MRE) and what TE and SWE state are not one quantity
    "elasticity": Concept("DCM", "110830", "Elasticity", "PS3.16 CID 12308; Young's modulus", decimals=2),
    "shear_stiffness": _private("SHEAR_STIFFNESS", "Shear stiffness", decimals=2),
    "shear_stiffness_low": _private("STIFFNESS_LOW", "Shear stiffness, lower limit", decimals=2),
    "shear_stiffness_high": _private("STIFFNESS_HIGH", "Shear stiffness, upper limit", decimals=2),
    "elasticity_low": _private("ELASTICITY_LOW", "Elasticity, lower limit", decimals=2),
    "elasticity_high": _private("ELASTICITY_HIGH", "Elasticity, upper limit", decimals=2),
    "shear_wave_speed": Concept("DCM", "130611", "Shear Wave Speed", "PS3.16 CID 12308", decimals=2),
    "interquartile_range": Concept("DCM", "130614", "Interquartile Range of population", "PS3.16 CID 7465", decimals=2),
    "iqr_to_median": Concept(
        "DCM", "130615", "Interquartile Range to Median ratio of population", "PS3.16 CID 7465", decimals=2
    ),
    "readable_area": _private("READABLE_AREA", "Area where stiffness can be read"),
    "area_of_region": Concept("SCT", "131184002", "Area of defined region", "PS3.16 CID 12308"),
    "region_depth": Concept("DCM", "130613", "ROI Depth", "PS3.16 CID 12308"),
    "driver_frequency": _private("DRIVER_FREQUENCY", "Frequency of the mechanical driver"),
    "diagnostic_slices": _private("SLICES_USABLE", "Diagnostic slices", decimals=0),
    "diagnostic_probability": _private("P_DIAGNOSTIC", "Probability of diagnostic quality"),
    # numbers of fat
    "ultrasound_attenuation": Concept("DCM", "110833", "Ultrasound Attenuation", "PS3.16 CID 7469", decimals=2),
    "controlled_attenuation": _private("CAP", "Controlled attenuation parameter", decimals=0),
    "fat_fraction": Concept("DCM", "129100", "Fat fraction", "PS3.16 CID 7469"),
    "apparent_diffusion": Concept("DCM", "113041", "Apparent Diffusion Coefficient", "PS3.16 CID 7469", decimals=2),
    # probabilities and scores of diffuse disease, in %
    "steatosis_probability": _private("P_STEATOSIS", "Probability of steatosis (S1 or more)"),
    "significant_fibrosis_probability": _private("P_F2", "Probability of significant fibrosis (F2 or more)"),
    "advanced_fibrosis_probability": _private("P_F3", "Probability of advanced fibrosis (F3 or more)"),
    "cirrhosis_probability": _private("P_F4", "Probability of cirrhosis (F4)"),
    "focal_probability": _private("P_FOCAL", "Probability of a focal lesion"),
    **{f"F{stage}_probability": _private(f"P_STAGE_F{stage}", f"Probability of stage F{stage}") for stage in range(5)},
    "fib4": _private("FIB4", "FIB-4 index", decimals=2),
    "apri": _private("APRI", "AST to platelet ratio index (APRI)", decimals=2),
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
    "focal_abnormality": Concept("DCM", "130591", "Focal abnormality", "PS3.16 CID 6335"),
    "fibrosis": Concept("SCT", "112674009", "Fibrosis", "PS3.16 CID 6335"),
    "cirrhosis": Concept("SCT", "19943007", "Cirrhosis of liver", "PS3.16 CID 12325"),
    "fibrosis_stage": _private("FIBROSIS_STAGE", "Fibrosis stage, METAVIR-like"),
    "F0": _private("F0", "F0: no fibrosis"),
    "F1": _private("F1", "F1: portal fibrosis without septa", "fibrosis"),
    "F2": _private("F2", "F2: significant fibrosis", "fibrosis"),
    "F3": _private("F3", "F3: advanced fibrosis", "fibrosis"),
    "F4": _private("F4", "F4: cirrhosis", "cirrhosis"),
    "steatosis": _private("STEATOSIS", "Steatosis of the liver"),
    "steatosis_grade": _private("STEATOSIS_GRADE", "Steatosis grade"),
    "S0": _private("S0", "S0: none"),
    "S1": _private("S1", "S1: mild"),
    "S2": _private("S2", "S2: moderate"),
    "S3": _private("S3", "S3: severe"),
    "method": Concept("SCT", "370129005", "Measurement Method", "PS3.16 CID 9000"),
    "mr_elastography": _private("MRE", "MR elastography"),
    "stiffness_source": _private("STIFFNESS_SOURCE", "Where the stiffness is from"),
    "scanner_elastogram": _private("ELASTOGRAM", "Elastogram of the scanner"),
    "own_inversion": _private("OWN_INVERSION", "Inversion by this software"),
    "transient_elastography": _private("TE", "Transient elastography"),
    "point_shear_wave": Concept("DCM", "130616", "Point Shear Wave Elastography", "PS3.16 CID 12224"),
    "shear_wave_2d": Concept("DCM", "130609", "2D Shear Wave Elastography", "PS3.16 CID 12224"),
    "shear_wave_3d": Concept("DCM", "130610", "3D Shear Wave Elastography", "PS3.16 CID 12224"),
    # quality
    "quality": Concept("DCM", "111050", "Quality Assessment", "PS3.16 Annex D"),
    "study_quality": Concept("DCM", "130549", "Imaging Study Quality", "PS3.16 Annex D"),
    "series_quality": Concept("DCM", "130550", "Imaging Series Quality", "PS3.16 Annex D"),
    "diagnostic": Concept("RADLEX", "RID12", "Diagnostic quality", "PS3.16 CID 7036"),
    "limited": Concept("RADLEX", "RID13", "Limited quality", "PS3.16 CID 7036"),
    "non_diagnostic": Concept("RADLEX", "RID14", "Non-diagnostic quality", "PS3.16 CID 7036"),
    "quality_finding": Concept("DCM", "111052", "Quality Finding", "PS3.16 Annex D"),
    "poor_signal": Concept("DCM", "130578", "Poor SNR", "PS3.16 CID 6315"),
    "motion_artifact": Concept("RADLEX", "RID11423", "Motion related artifact", "PS3.16 CID 6315"),
    "coverage_incomplete": Concept("DCM", "130576", "Anatomy coverage incomplete", "PS3.16 CID 6315"),
    "NO_DRIVER_WAVES": _private("NO_DRIVER_WAVES", "No waves from the driver"),
    "LOW_WAVE_AMPLITUDE": _private("LOW_WAVES", "Wave amplitude too low"),
    "LOW_SNR_IRON": _private("LOW_SNR_IRON", "Signal too low, as with iron", "poor_signal"),
    "MOTION": _private("MOTION", "Motion", "motion_artifact"),
    "PHASE_WRAP": _private("PHASE_WRAP", "Phase wraps that cannot be resolved"),
    "BLUR": _private("BLUR", "Blurred image"),
    "INSUFFICIENT_ROI": _private("INSUFFICIENT_ROI", "Readable area too small"),
    "WRONG_FREQUENCY": _private("WRONG_FREQUENCY", "Driver and sequence differ in frequency"),
    "COVERAGE": _private("COVERAGE", "Liver not covered", "coverage_incomplete"),
    "analysis": Concept("DCM", "111004", "Analysis Performed", "PS3.16 Annex D"),
    "not_analysed": _private("NOT_ANALYSED", "Not analysed"),
    # words about the document itself
    "comment": Concept("DCM", "121106", "Comment", "PS3.16 CID 12101"),
    "artificial_intelligence": Concept("DCM", "123110", "Artificial Intelligence", "PS3.16 CID 7162"),
    "background": Concept("DCM", "125040", "Background", "PS3.16 CID 7150, 7151"),
    "quantity": Concept("SCT", "246205007", "Quantity", "PS3.16 CID 9000"),
    "calculation": Concept("DCM", "112187", "Unspecified method of calculation", "PS3.16 CID 7203"),
    "segmentation": Concept("DCM", "113076", "Segmentation", "PS3.16 CID 7203"),
    "source_image": Concept("DCM", "121322", "Source image for image processing operation", "PS3.16 CID 7202"),
    "device": Concept("DCM", "121007", "Device", "PS3.16 CID 270"),
    "processing_equipment": Concept("DCM", "109102", "Processing Equipment", "PS3.16 CID 7005"),
    "acquisition_equipment": Concept("DCM", "109101", "Acquisition Equipment", "PS3.16 CID 7005"),
    "imaging_measurement_report": Concept("DCM", "126000", "Imaging Measurement Report", "PS3.16 CID 7021"),
    "diagnostic_imaging_report": Concept("LN", "18748-4", "Diagnostic Imaging Report", "PS3.16 CID 7000"),
    "of_interest": Concept("DCM", "113000", "Of Interest", "PS3.16 CID 7010"),
    "CT": Concept("LN", "25045-6", "CT unspecified body region", "PS3.16 CID 100"),
    "MR": Concept("LN", "25056-3", "MR unspecified body region", "PS3.16 CID 100"),
    "imaging_procedure": Concept("SCT", "363679005", "Imaging procedure", "PS3.16 CID 100"),
    "modality_CT": Concept("DCM", "CT", "Computed Tomography", "PS3.16 CID 29"),
    "modality_MR": Concept("DCM", "MR", "Magnetic Resonance", "PS3.16 CID 29"),
    "modality_US": Concept("DCM", "US", "Ultrasound", "PS3.16 CID 29"),
    # names of content items of reports (PS3.16 TID 300, 1001 to 1004, 1204, 1410, 1411, 1500, 1501, 1600 to 1604, 4019)
    "language": _item("121049", "Language of Content Item and Descendants"),
    "english": Concept("RFC5646", "en-US", "English (United States)", "PS3.16 CID 5000"),
    "observer_type": _item("121005", "Observer Type"),
    "observer_uid": _item("121012", "Device Observer UID"),
    "observer_name": _item("121013", "Device Observer Name"),
    "observer_manufacturer": _item("121014", "Device Observer Manufacturer"),
    "observer_model": _item("121015", "Device Observer Model Name"),
    "observer_serial": _item("121016", "Device Observer Serial Number"),
    "procedure_reported": _item("121058", "Procedure reported"),
    "image_library": _item("111028", "Image Library"),
    "image_library_group": _item("126200", "Image Library Group"),
    "modality": _item("121139", "Modality"),
    "frame_of_reference": _item("112227", "Frame of Reference UID"),
    "pixel_rows": _item("110910", "Pixel Data Rows"),
    "pixel_columns": _item("110911", "Pixel Data Columns"),
    "horizontal_spacing": _item("111026", "Horizontal Pixel Spacing"),
    "vertical_spacing": _item("111066", "Vertical Pixel Spacing"),
    "slice_thickness": _item("112225", "Slice Thickness"),
    "slice_spacing": _item("112226", "Spacing between slices"),
    **{f"position_{axis}": _item(f"11090{1 + k}", f"Image Position (Patient) {axis}") for k, axis in enumerate("XYZ")},
    **{
        f"row_{axis}": _item(f"11090{4 + k}", f"Image Orientation (Patient) Row {axis}") for k, axis in enumerate("XYZ")
    },
    **{
        f"column_{axis}": _item(f"11090{7 + k}", f"Image Orientation (Patient) Column {axis}")
        for k, axis in enumerate("XYZ")
    },
    "imaging_measurements": _item("126010", "Imaging Measurements"),
    "measurement_group": _item("125007", "Measurement Group"),
    "tracking_identifier": _item("112039", "Tracking Identifier"),
    "tracking_uid": _item("112040", "Tracking Unique Identifier"),
    "finding": _item("121071", "Finding"),
    "finding_site": Concept("SCT", "363698007", "Finding Site", "PS3.16 CID 9000"),
    "algorithm_name": _item("111001", "Algorithm Name"),
    "algorithm_version": _item("111003", "Algorithm Version"),
    "algorithm_parameters": _item("111002", "Algorithm Parameters"),
    "image_region": _item("111030", "Image Region"),
    "source": Concept("SCT", "260753009", "Source", "PS3.16 SNOMED CT list"),
    "referenced_segment": _item("121191", "Referenced Segment"),
    "source_image_for_segmentation": _item("121233", "Source image for segmentation"),
    "supporting_information": _item("112359", "Supporting Information"),
    "source_of_measurement": _item("121112", "Source of Measurement"),
    "key_images": _item("121180", "Key Images"),
    "summary": _item("121111", "Summary"),
    "impression": _item("121073", "Impression"),
    "conclusion": _item("121077", "Conclusion"),
    "impressions_section": Concept("LN", "19005-8", "Impressions", "PS3.16 CID 7001"),
    "findings_section": Concept("LN", "59776-5", "Findings", "PS3.16 CID 7001"),
    "conclusions_section": Concept("LN", "55110-1", "Conclusions", "PS3.16 CID 7001"),
    "key_object_description": _item("113012", "Key Object Description"),
}

#: Every concept by key.
CONCEPTS: Mapping[str, Concept] = MappingProxyType(_TABLE)

#: UCUM units by the code that `Measurement.unit` carries. Those in braces are UCUM annotations: a count of the thing.
UNITS: Mapping[str, Code] = MappingProxyType(
    {
        code: Code(code, "UCUM", meaning)
        for code, meaning in {
            "mm": "millimeter",
            "cm": "centimeter",
            "mm2": "square millimeter",
            "cm2": "square centimeter",
            "mm3": "cubic millimeter",
            "cm3": "cubic centimeter",
            "mL": "milliliter",
            "%": "Percent",
            "1": "no units",
            "{ratio}": "ratio",
            "{score}": "score",
            "{lesions}": "lesions",
            "{images}": "images",
            "{slices}": "slices",
            "{pixels}": "Pixels",
            "{-1:1}": "{-1:1}",
            "Pa": "pascal",
            "kPa": "kilopascal",
            "m/s": "meter per second",
            "ms": "millisecond",
            "s": "second",
            "Hz": "hertz",
            "MHz": "megahertz",
            "rad": "radian",
            "um": "micrometer",
            "um2/s": "square micrometer per second",
            "mm2/s": "square millimeter per second",
            "dB": "decibel",
            "dB/m": "decibel per meter",
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


def is_own(key: str | None) -> bool:
    """Whether the concept of a key has a code of our own scheme."""
    return key is not None and concept(key).scheme == PRIVATE_SCHEME


def unit(code: str) -> Code:
    """The UCUM unit of that code; UnknownConcept when the table has none."""
    found = UNITS.get(code)
    if found is None:
        raise UnknownConcept(f"Unit {code!r} is not among the UCUM units in {__name__}; add it there.")
    return found
