"""What every object of ours has in common: the patient's and study's attributes as the source wrote them, our
equipment, our Series, the time of the job.

Identity is copied as bytes, with its character set: never decoded, "corrected" or encoded anew. Our own words are
ASCII wherever the source's character set could not hold them.
"""

import unicodedata
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import Any

from pydicom import Dataset, config, dcmwrite
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.dimse.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.encoding.concepts import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, PRIVATE_SCHEME_UID, concept
from dicom_node.encoding.provenance import MANUFACTURER, Provenance, add_equipment, contributing_equipment
from dicom_node.encoding.sources import SourceStack

TRANSFER_SYNTAX_UID = str(ExplicitVRLittleEndian)

#: Patient, Clinical Trial Subject, General Study, Patient Study and Clinical Trial Study modules (PS3.3 C.7.1, C.7.2).
_IDENTITY = """
PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID PatientBirthDate
PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar
PatientSex QualityControlSubject PatientBirthTime OtherPatientIDs OtherPatientIDsSequence OtherPatientNames
EthnicGroup PatientComments PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription
PatientBreedCodeSequence ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization PatientIdentityRemoved
DeidentificationMethod DeidentificationMethodCodeSequence ReferencedPatientSequence ClinicalTrialSponsorName
ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName
ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName
ClinicalTrialProtocolEthicsCommitteeApprovalNumber StudyInstanceUID StudyDate StudyTime ReferringPhysicianName
ReferringPhysicianIdentificationSequence ConsultingPhysicianName StudyID AccessionNumber
IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence RequestingService
RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence
ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge
PatientSize PatientWeight PatientBodyMassIndex PatientSizeCodeSequence MedicalAlerts Allergies SmokingStatus
PregnancyStatus LastMenstrualDate PatientState Occupation AdditionalPatientHistory AdmissionID
IssuerOfAdmissionIDSequence ServiceEpisodeID IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription
PatientSexNeutered ClinicalTrialTimePointID ClinicalTrialTimePointDescription
"""
IDENTITY_KEYWORDS = tuple(_IDENTITY.split())
_TYPE_2 = (  # must be there, may be empty
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_EQUIPMENT_KEYWORDS = (
    "Manufacturer",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
_BINARY_VRS = frozenset({"AT", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "OW", "OF", "OD", "OL", "OV"})
_ASCII = str.maketrans({"µ": "u", "μ": "u", "²": "2", "³": "3", "–": "-", "—": "-", "×": "x", "−": "-", "°": " deg"})


def new_object(
    sop_class_uid: str,
    modality: str,
    source: Dataset,
    provenance: Provenance,
    *,
    role: str,
    series_number: int,
    series_description: str,
    own_codes: bool = True,
) -> Dataset:
    """A Dataset with everything but its content: identity, Series, equipment, SOP Common, File Meta Information.

    source : an image of the study, whose identity is copied.
    role : name of the output, part of its UIDs: "sr", "seg", "refusal".
    own_codes : whether codes of our own scheme will be in it, which then is identified.
    """
    dataset = Dataset()
    copy_identity(source, dataset)
    dataset.SOPClassUID = UID(sop_class_uid)
    dataset.SOPInstanceUID = UID(provenance.uid(f"{role} instance"))
    dataset.SeriesInstanceUID = UID(provenance.uid(f"{role} series"))
    dataset.SeriesNumber = series_number
    dataset.InstanceNumber = 1
    dataset.Modality = modality
    dataset.SeriesDescription = shortened(plain(series_description, source), 64)
    dataset.ContentQualification = "RESEARCH"
    _add_times(dataset, source, provenance)
    add_equipment(dataset, provenance)
    dataset.ContributingEquipmentSequence = [_acquisition_equipment(source), contributing_equipment(provenance)]
    if own_codes:
        scheme = Dataset()
        scheme.CodingSchemeDesignator = PRIVATE_SCHEME
        scheme.CodingSchemeUID = PRIVATE_SCHEME_UID
        scheme.CodingSchemeName = PRIVATE_SCHEME_NAME
        scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
        dataset.CodingSchemeIdentificationSequence = [scheme]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    """The object as a Part 10 file."""
    keep_raw(dataset)
    buffer = BytesIO()
    with config.disable_value_validation():  # the source's identity is not ours to judge
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def series_description(provenance: Provenance, verdict: str = "") -> str:
    """What every viewer shows of a result. At most 64 characters; lists cut it after about 25.

    So what it must not be taken for comes first, then the verdict if the answer has one, what it is, what taught it.
    """
    first = "PRELIMINARY RESEARCH" if provenance.partial else "RESEARCH"
    if verdict:
        return shortened(f"{first} {verdict}: {provenance.title}, unverified", 64)
    words = "trained on simulation" if provenance.is_trained_on_simulation else "unverified"
    return shortened(f"{first} {provenance.title} {provenance.version}, {words}", 64)


def disclaimer(provenance: Provenance) -> str:
    """The same as a line in the text of the report."""
    if provenance.is_trained_on_simulation:
        return "Research use, unverified; trained on simulated images"
    return "Research use; not verified by a physician"


def copy_identity(source: Dataset, target: Dataset) -> None:
    """Copy patient, study and character set byte for byte; Type 2 elements missing in the source become empty."""
    for keyword in ("SpecificCharacterSet", *IDENTITY_KEYWORDS):
        tag = tag_for_keyword(keyword)
        if tag is not None and tag in source:
            _copy(source, target, Tag(tag))
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, None)


def identity_bytes(dataset: Dataset) -> dict[str, bytes]:
    """The copied elements as they are written, by keyword; padding stripped. For comparing source and result."""
    found = {}
    for keyword in ("SpecificCharacterSet", *IDENTITY_KEYWORDS):
        tag = tag_for_keyword(keyword)
        if tag is None or tag not in dataset or dictionary_VR(tag) in {"SQ", *_BINARY_VRS}:
            continue
        value = _raw(dataset, Tag(tag)).value or b""
        if value.strip(b" \0"):
            found[keyword] = value.rstrip(b" \0")
    return found


def plain(text: str, source: Dataset) -> str:
    """`text` such that the source's character set can hold it: unchanged if it can, else turned into ASCII."""
    text = " ".join(text.replace("\\", "/").split())  # the backslash separates values
    try:
        text.encode(_encoding(source))
    except (UnicodeError, LookupError):
        text = unicodedata.normalize("NFKD", text.translate(_ASCII)).encode("ascii", "replace").decode("ascii")
    return text


def shortened(text: str, length: int) -> str:
    """At most `length` characters, with "..." where something was left out."""
    return text if len(text) <= length else f"{text[: length - 3].rstrip()}..."


def add_code(dataset: Dataset, keyword: str, key: str) -> None:
    """Set a code sequence of one item from the table of concepts."""
    code = concept(key).code
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    setattr(dataset, keyword, [item])


def local_time(source: Dataset, provenance: Provenance) -> datetime:
    """Time of the job in the zone that the source states (0008,0201), else as provenance gives it."""
    created = provenance.created_at
    text = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if created.tzinfo is None or len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return created
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return created.astimezone(timezone(offset if text[0] == "+" else -offset))


def add_frame_of_reference(dataset: Dataset, stack: SourceStack) -> None:
    """Frame of Reference module (PS3.3 C.7.4.1) of the source."""
    dataset.FrameOfReferenceUID = stack.frame_of_reference_uid
    dataset.PositionReferenceIndicator = str(stack.header.get("PositionReferenceIndicator") or "")


def _add_times(dataset: Dataset, source: Dataset, provenance: Provenance) -> None:
    created = local_time(source, provenance)
    day, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S")
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{name}Date", day)
        setattr(dataset, f"{name}Time", time)
    if "TimezoneOffsetFromUTC" in source:
        _copy(source, dataset, Tag("TimezoneOffsetFromUTC"))


def _acquisition_equipment(source: Dataset) -> Dataset:
    item = Dataset()
    for keyword in _EQUIPMENT_KEYWORDS:
        if keyword in source:
            _copy(source, item, Tag(keyword))
    if not _raw(item, Tag("Manufacturer")).value:
        item.Manufacturer = "unknown"  # Type 1 here (PS3.3 C.12.1.1.5)
    add_code(item, "PurposeOfReferenceCodeSequence", "acquisition_equipment")
    return item


def _encoding(source: Dataset) -> str:
    """Python encoding of the source's first character set, if it alone can be relied on; else ASCII."""
    value: Any = source.get("SpecificCharacterSet")
    names = [value] if isinstance(value, str) else list(value or ())
    if len(names) != 1:  # with code extensions a text would need escape sequences
        return "ascii"
    encoding = python_encoding.get(names[0])
    return "ascii" if encoding in (None, "iso8859", "iso_ir_6") else str(encoding)


def _copy(source: Dataset, target: Dataset, tag: BaseTag) -> None:
    """One element with its bytes; sequences item by item, without private elements."""
    vr = dictionary_VR(tag)
    if vr == "SQ":
        items = []
        for item in source[tag].value or ():
            copied = Dataset()
            for inner in item.keys():  # noqa: SIM118 - iterating a Dataset would decode its elements
                if not inner.is_private and inner.element != 0:
                    try:
                        _copy(item, copied, inner)
                    except KeyError:
                        continue  # not in the dictionary: its VR is not known
            items.append(copied)
        target.add(DataElement(tag, "SQ", DicomSequence(items)))
    elif vr in _BINARY_VRS or " or " in vr:
        target.add(source[tag])
    else:
        target[tag] = _raw(source, tag)


def _raw(dataset: Dataset, tag: BaseTag) -> RawDataElement:
    """The element as it is written with Explicit VR Little Endian, even length."""
    vr = dictionary_VR(tag)
    element = dataset.get_item(tag) if tag in dataset else None
    if element is None:
        value = b""
    elif isinstance(element, RawDataElement):
        value = element.value or b""
    else:
        value = _written(element, dataset)
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def keep_raw(dataset: Dataset) -> None:
    """Make pydicom write copied elements as they are; by default it decodes them and encodes them anew.

    It takes a Dataset for unchanged when its encoding and character set are those it was read with, so we say so.
    """
    dataset.set_original_encoding(False, True, dataset._character_set)
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset would decode its elements
        element = dataset.get_item(tag)
        if isinstance(element, DataElement) and element.VR == "SQ":
            for item in element.value:
                keep_raw(item)


def _written(element: DataElement, dataset: Dataset) -> bytes:
    """Bytes of the value of a decoded element, in the Dataset's character set."""
    single = Dataset()
    if "SpecificCharacterSet" in dataset:
        single.SpecificCharacterSet = dataset.SpecificCharacterSet
    single.add(element)
    buffer = BytesIO()
    with config.disable_value_validation():
        dcmwrite(buffer, single, implicit_vr=True, little_endian=True)
    written = buffer.getvalue()
    position = 0
    while position < len(written):  # tag, length, value in Implicit VR Little Endian
        found = BaseTag(int.from_bytes(written[position : position + 2], "little") << 16)
        found = BaseTag(found | int.from_bytes(written[position + 2 : position + 4], "little"))
        length = int.from_bytes(written[position + 4 : position + 8], "little")
        if found == element.tag:
            return written[position + 8 : position + 8 + length]
        position += 8 + length
    return b""
