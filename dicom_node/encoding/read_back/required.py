"""Attributes that an object may not go without: Types 1 and 2 of its IOD's modules, and 1C where we know the condition.

Compiled from PS3.3 and held against highdicom's tables of it by a test; those themselves take 110 MB and a third of a
second to load. What is copied from the source (Patient, Study) is not ours to judge, but Type 2 elements must be there.
"""

from collections.abc import Mapping
from functools import cache
from itertools import chain
from types import MappingProxyType

from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.encoding.read_back.elements import Item, decoded, name_of, tag_of
from dicom_node.encoding.read_back.opened import LABEL_MAP_SEGMENTATION, Opened

#: Module -> keywords with their Type in front ("1" or "2").
_MODULES: Mapping[str, str] = {
    "patient": "2 PatientName PatientID PatientBirthDate PatientSex",
    "general-study": "1 StudyInstanceUID 2 StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber",
    "general-series": "1 Modality SeriesInstanceUID 2 SeriesNumber",
    "sr-document-series": "1 Modality SeriesInstanceUID SeriesNumber 2 ReferencedPerformedProcedureStepSequence",
    "key-object-document-series": "1 Modality SeriesInstanceUID SeriesNumber"
    " 2 ReferencedPerformedProcedureStepSequence",
    "encapsulated-document-series": "1 Modality SeriesInstanceUID SeriesNumber",
    "segmentation-series": "1 Modality SeriesNumber",
    "parametric-map-series": "1 Modality SeriesNumber",
    "frame-of-reference": "1 FrameOfReferenceUID 2 PositionReferenceIndicator",
    "general-equipment": "2 Manufacturer",
    "enhanced-general-equipment": "1 Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions",
    "sc-equipment": "1 ConversionType",
    "general-acquisition": "",
    "general-image": "2 InstanceNumber",
    "image-pixel": "1 SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit"
    " PixelRepresentation",
    "multi-frame": "1 NumberOfFrames FrameIncrementPointer",
    "sc-image": "",
    "sc-multi-frame-image": "1 BurnedInAnnotation",
    "segmentation-image": "1 ImageType InstanceNumber SamplesPerPixel PhotometricInterpretation BitsAllocated"
    " BitsStored HighBit PixelRepresentation LossyImageCompression SegmentationType SegmentSequence ContentLabel"
    " 2 ContentDescription",
    "segmentation-multi-frame-functional-groups": "1 ContentDate ContentTime InstanceNumber NumberOfFrames"
    " SharedFunctionalGroupsSequence",
    "parametric-map-image": "1 ImageType ContentQualification InstanceNumber SamplesPerPixel PhotometricInterpretation"
    " BitsAllocated BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression ContentLabel"
    " PresentationLUTShape 2 ContentDescription",
    "parametric-map-multi-frame-functional-groups": "1 ContentDate ContentTime InstanceNumber NumberOfFrames"
    " SharedFunctionalGroupsSequence",
    "multi-frame-dimension": "1 DimensionOrganizationSequence",
    "acquisition-context": "2 AcquisitionContextSequence",
    "sr-document-general": "1 ContentDate ContentTime InstanceNumber CompletionFlag VerificationFlag"
    " 2 PerformedProcedureCodeSequence",
    "key-object-document": "1 ContentDate ContentTime InstanceNumber CurrentRequestedProcedureEvidenceSequence",
    "sr-document-content": "1 ValueType ConceptNameCodeSequence ContinuityOfContent",
    "encapsulated-document": "1 InstanceNumber BurnedInAnnotation EncapsulatedDocument MIMETypeOfEncapsulatedDocument"
    " 2 ContentDate ContentTime AcquisitionDateTime ConceptNameCodeSequence DocumentTitle",
    "sop-common": "1 SOPClassUID SOPInstanceUID",
}
_COMMON = "patient general-study general-equipment sop-common"
_SR = f"{_COMMON} sr-document-series sr-document-general sr-document-content"
_SEG = (
    f"{_COMMON} general-series segmentation-series enhanced-general-equipment general-image image-pixel"
    " segmentation-image segmentation-multi-frame-functional-groups multi-frame-dimension"
)
#: SOP Class -> its mandatory modules (PS3.3 Annex A).
_IODS: Mapping[str, str] = {
    str(Comprehensive3DSRStorage): _SR,
    str(ComprehensiveSRStorage): _SR,
    str(EnhancedSRStorage): _SR,
    str(BasicTextSRStorage): _SR,
    str(SegmentationStorage): _SEG,
    LABEL_MAP_SEGMENTATION: _SEG,
    str(ParametricMapStorage): f"{_COMMON} general-series parametric-map-series frame-of-reference"
    " enhanced-general-equipment general-image parametric-map-image parametric-map-multi-frame-functional-groups"
    " multi-frame-dimension acquisition-context",
    str(KeyObjectSelectionDocumentStorage): f"{_COMMON} key-object-document-series key-object-document"
    " sr-document-content",
    str(SecondaryCaptureImageStorage): f"{_COMMON} general-series sc-equipment general-image image-pixel sc-image",
    str(MultiFrameTrueColorSecondaryCaptureImageStorage): f"{_COMMON} general-series sc-equipment general-image"
    " image-pixel multi-frame sc-multi-frame-image",
    str(EncapsulatedPDFStorage): f"{_COMMON} encapsulated-document-series sc-equipment encapsulated-document",
}

_SOP_REFERENCE = "1 ReferencedSOPClassUID ReferencedSOPInstanceUID"
_DOCUMENTS = "1 StudyInstanceUID ReferencedSeriesSequence"
#: Sequence -> what each of its items needs, wherever it stands.
ITEMS: Mapping[str, str] = MappingProxyType(
    {
        "CurrentRequestedProcedureEvidenceSequence": _DOCUMENTS,
        "PertinentOtherEvidenceSequence": _DOCUMENTS,
        "PredecessorDocumentsSequence": _DOCUMENTS,
        "ReferencedSeriesSequence": "1 SeriesInstanceUID",
        "ReferencedInstanceSequence": _SOP_REFERENCE,
        "ReferencedSOPSequence": _SOP_REFERENCE,
        "ReferencedImageSequence": _SOP_REFERENCE,
        "SourceImageSequence": _SOP_REFERENCE,
        "SourceInstanceSequence": _SOP_REFERENCE,
        "ContentTemplateSequence": "1 MappingResource TemplateIdentifier",
        "MeasuredValueSequence": "1 NumericValue MeasurementUnitsCodeSequence",
        "ContributingEquipmentSequence": "1 Manufacturer PurposeOfReferenceCodeSequence",
        "CodingSchemeIdentificationSequence": "1 CodingSchemeDesignator",
        "SegmentSequence": "1 SegmentNumber SegmentLabel SegmentAlgorithmType SegmentedPropertyCategoryCodeSequence"
        " SegmentedPropertyTypeCodeSequence",
        "SegmentationAlgorithmIdentificationSequence": "1 AlgorithmFamilyCodeSequence AlgorithmName AlgorithmVersion",
        "DimensionOrganizationSequence": "1 DimensionOrganizationUID",
        "DimensionIndexSequence": "1 DimensionOrganizationUID DimensionIndexPointer FunctionalGroupPointer",
        "FrameContentSequence": "1 DimensionIndexValues",
        "PixelMeasuresSequence": "1 PixelSpacing SliceThickness",
        "PlaneOrientationSequence": "1 ImageOrientationPatient",
        "PlanePositionSequence": "1 ImagePositionPatient",
        "DerivationImageSequence": "1 DerivationCodeSequence 2 SourceImageSequence",
        "SegmentIdentificationSequence": "1 ReferencedSegmentNumber",
        "ParametricMapFrameTypeSequence": "1 FrameType",
        "PixelValueTransformationSequence": "1 RescaleIntercept RescaleSlope RescaleType",
        "RealWorldValueMappingSequence": "1 LUTExplanation LUTLabel MeasurementUnitsCodeSequence",
        "QuantityDefinitionSequence": "1 ValueType ConceptNameCodeSequence",
        "FrameAnatomySequence": "1 AnatomicRegionSequence FrameLaterality",
    }
)
#: Value Type of a content item -> what it needs (PS3.3 C.17.3.2, C.18).
CONTENT_ITEMS: Mapping[str, str] = MappingProxyType(
    {
        "TEXT": "1 ConceptNameCodeSequence TextValue",
        "NUM": "1 ConceptNameCodeSequence 2 MeasuredValueSequence",
        "CODE": "1 ConceptNameCodeSequence ConceptCodeSequence",
        "UIDREF": "1 ConceptNameCodeSequence UID",
        "PNAME": "1 ConceptNameCodeSequence PersonName",
        "DATE": "1 ConceptNameCodeSequence Date",
        "TIME": "1 ConceptNameCodeSequence Time",
        "DATETIME": "1 ConceptNameCodeSequence DateTime",
        "IMAGE": "1 ReferencedSOPSequence",
        "COMPOSITE": "1 ReferencedSOPSequence",
        "CONTAINER": "1 ContinuityOfContent",
        "SCOORD": "1 GraphicType GraphicData ContentSequence",
        "SCOORD3D": "1 GraphicType GraphicData ReferencedFrameOfReferenceUID",
    }
)
#: SOP Class -> functional groups that each frame has, by itself or shared (PS3.3 Tables A.51-2 and A.75-2).
_FRAME_GROUPS: Mapping[str, str] = {
    str(SegmentationStorage): "FrameContentSequence SegmentIdentificationSequence DerivationImageSequence",
    LABEL_MAP_SEGMENTATION: "FrameContentSequence DerivationImageSequence",
    str(ParametricMapStorage): "FrameContentSequence ParametricMapFrameTypeSequence PixelValueTransformationSequence"
    " RealWorldValueMappingSequence",
}
#: Macros of one coded entry whose keyword does not end so (PS3.3 Table 8.8-1).
_CODE_ENDING = "CodeSequence"
_ALSO_CODES = frozenset({"AnatomicRegionSequence", "AnatomicRegionModifierSequence"})
#: Longest value by VR, characters (PS3.5 Table 6.2-1).
_LONGEST = {b"AE": 16, b"CS": 16, b"DS": 16, b"IS": 12, b"LO": 64, b"SH": 16, b"ST": 1024, b"LT": 10240}
_TEXT_VRS = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"})
#: Written as the source writes them, right or wrong.
_COPIED = frozenset(
    tag_of(keyword)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "SpacingBetweenSlices",
        "PositionReferenceIndicator",
        "FrameOfReferenceUID",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
        "TimezoneOffsetFromUTC",
        "Manufacturer",
        "ManufacturerModelName",
        "InstitutionName",
        "InstitutionalDepartmentName",
        "StationName",
        "DeviceSerialNumber",
        "SoftwareVersions",
    )
)


def needs(words: str) -> tuple[list[str], list[str]]:
    """Type 1 and Type 2 keywords of a line of the tables above."""
    found: dict[str, list[str]] = {"1": [], "2": []}
    kind = "1"
    for word in words.split():
        if word in found:
            kind = word
        else:
            found[kind].append(word)
    return found["1"], found["2"]


def needed_by(sop_class_uid: str) -> tuple[list[str], list[str]]:
    """Type 1 and Type 2 keywords of a SOP Class's mandatory modules."""
    pairs = [needs(_MODULES[module]) for module in _IODS[sop_class_uid].split()]
    ones = list(dict.fromkeys(chain.from_iterable(one for one, _ in pairs)))
    twos = [keyword for _, two in pairs for keyword in two]
    return ones, [keyword for keyword in dict.fromkeys(twos) if keyword not in ones]


_NEEDED = {
    uid: tuple(tuple((keyword, tag_of(keyword)) for keyword in part) for part in needed_by(uid)) for uid in _IODS
}
_ITEMS_NEEDED = {
    key: tuple(tuple((keyword, tag_of(keyword)) for keyword in part) for part in needs(words))
    for key, words in chain(ITEMS.items(), CONTENT_ITEMS.items())
}

_PURPOSE = ((("PurposeOfReferenceCodeSequence", tag_of("PurposeOfReferenceCodeSequence")),), ())


def check_required(result: Opened) -> None:
    """Every attribute that the object needs is there, and has a value where it must. Raises InvalidResult."""
    dataset = result.dataset
    _check(result, dataset, _NEEDED[result.sop_class_uid], "")
    schemes = {item.text("CodingSchemeDesignator") for item in dataset.sequence("CodingSchemeIdentificationSequence")}
    for keyword, item in result.items:
        kind = item.text("ValueType") if keyword == "ContentSequence" else ""
        if keyword == "ContentSequence" and (kind not in CONTENT_ITEMS or not item.has("RelationshipType")):
            raise result.fault(f"a content item has the Value Type {kind!r}, or no Relationship Type (0040,A010).")
        needed = _ITEMS_NEEDED.get(kind or keyword)
        if needed is not None:
            _check(result, item, needed, f" in an item of {keyword}{f' of type {kind}' if kind else ''}")
        if keyword == "DerivationImageSequence":
            for image in item.sequence("SourceImageSequence"):
                _check(result, image, _PURPOSE, " in a source image of a derivation")
        if keyword.endswith(_CODE_ENDING) or keyword in _ALSO_CODES:
            _check_code(result, keyword, item, schemes)
    _check_conditions(result)
    _check_frames(result)
    _check_values(result)


def _check(result: Opened, item: Item, needed: tuple[tuple[tuple[str, int], ...], ...], where: str) -> None:
    ones, twos = needed
    for keyword, tag in ones:
        if tag not in item or not item.has(keyword):
            raise result.fault(f"{name_of(tag)} is missing or empty{where}; it is of Type 1.")
    for _, tag in twos:
        if tag not in item:
            raise result.fault(f"{name_of(tag)} is missing{where}; it is of Type 2.")


def _check_code(result: Opened, keyword: str, item: Item, schemes: set[str]) -> None:
    """Code Sequence macro (PS3.3 8.8); private schemes are identified (C.12.1.1)."""
    scheme = item.text("CodingSchemeDesignator")
    values = [word for word in ("CodeValue", "LongCodeValue", "URNCodeValue") if item.has(word)]
    if len(values) != 1 or not item.has("CodeMeaning") or not (scheme or values == ["URNCodeValue"]):
        raise result.fault(f"an item of {keyword} is no whole code: value, scheme and meaning are needed.")
    if scheme.startswith("99") and scheme not in schemes:
        raise result.fault(f"the private coding scheme {scheme} is not identified (0008,0110).")


def _check_conditions(result: Opened) -> None:
    """Type 1C whose condition can be seen in the object."""
    dataset = result.dataset
    if dataset.text("LossyImageCompression") == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if not dataset.has(keyword):
                raise result.fault(f"{keyword} is missing, with Lossy Image Compression (0028,2110) 01.")
    if dataset.sequence("DimensionOrganizationSequence") and not dataset.sequence("DimensionIndexSequence"):
        raise result.fault("Dimension Index Sequence (0020,9222) is missing or empty.")
    if dataset.has("FrameOfReferenceUID") and tag_of("PositionReferenceIndicator") not in dataset:
        raise result.fault("Position Reference Indicator (0020,1040) is missing, with a Frame of Reference UID.")


def _check_frames(result: Opened) -> None:
    """Functional groups of every frame, and index values for every dimension (PS3.3 C.7.6.16, C.7.6.17)."""
    needed = _FRAME_GROUPS.get(result.sop_class_uid)
    if needed is None:
        return
    shared = result.dataset.first("SharedFunctionalGroupsSequence")
    left = [keyword for keyword in needed.split() if not shared.sequence(keyword)]
    dimensions = len(result.dataset.sequence("DimensionIndexSequence"))
    for number, frame in enumerate(result.dataset.sequence("PerFrameFunctionalGroupsSequence"), start=1):
        for keyword in left:
            if not frame.sequence(keyword):
                raise result.fault(f"frame {number} has no {keyword}.")
        values = frame.first("FrameContentSequence").numbers("DimensionIndexValues")
        if len(values) != dimensions or (values < 1).any():
            raise result.fault(f"frame {number} has {len(values)} index values for {dimensions} dimensions.")


def _check_values(result: Opened) -> None:
    """Our own values fit their VRs and the character set; VRs are those of the dictionary (PS3.5 6.2, PS3.6)."""
    character_set = result.character_set
    seen: set[tuple[int, bytes]] = set()  # the same codes and frames come again and again
    for item in chain((result.own,), (item for _, item in result.items)):
        for tag, (vr, value) in item.items():
            if isinstance(value, bytes) and value and tag not in _COPIED and (tag, value) not in seen:
                seen.add((tag, value))
                _check_value(result, tag, vr, value, character_set)


def _check_value(result: Opened, tag: int, vr: bytes, value: bytes, character_set: list[str]) -> None:
    try:
        known = _vrs(tag)
    except KeyError:
        raise result.fault(f"the element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is not in the dictionary.") from None
    if known and vr not in known:
        raise result.fault(f"{name_of(tag)} has the VR {vr.decode()}; it is {b' or '.join(known).decode()}.")
    if vr not in _LONGEST and vr not in _TEXT_VRS:
        return
    if vr in _TEXT_VRS:
        try:
            text = value.decode("ascii") if value.isascii() and b"\x1b" not in value else decoded(value, character_set)
        except (UnicodeError, LookupError):
            raise result.fault(f"{name_of(tag)} is not in the character set that it declares.") from None
        if not value.isascii() and not character_set:
            raise result.fault(f"{name_of(tag)} has letters beyond ASCII, without a Specific Character Set.")
    else:
        text = value.decode("ascii", "replace")
    longest = _LONGEST.get(vr)
    parts = [text] if vr in (b"ST", b"LT", b"UT") else text.split("\\")
    if longest is not None and any(len(part.rstrip("\0 ")) > longest for part in parts):
        raise result.fault(f"{name_of(tag)} has a value longer than the {longest} characters of {vr.decode()}.")
    if vr == b"CS" and any(set(part.strip()) - _CODE_STRING for part in parts):
        raise result.fault(f"{name_of(tag)} has the value {text.strip()!r}, which is no Code String.")


@cache
def _vrs(tag: int) -> tuple[bytes, ...]:
    """VRs that an element may have; empty for a private one. Raises KeyError for an unknown one of the standard."""
    return () if tag >> 16 & 1 else tuple(dictionary_VR(tag).encode().split(b" or "))


_CODE_STRING = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ ")
