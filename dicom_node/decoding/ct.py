"""CT stacks -> inputs of the CT pipelines."""

import re
from collections.abc import Mapping
from datetime import date

import pydicom

from dicom_node.decoding.volume import LoadedStack
from pipelines.inputs import CtLesionInput

#: Header texts that may tell of earlier treatment.
_DESCRIPTION_KEYWORDS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "AdditionalPatientHistory",
    "AdmittingDiagnosesDescription",
    "ReasonForTheRequestedProcedure",
)
_DAYS = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}


def ct_lesion_input(stacks: Mapping[str, LoadedStack]) -> CtLesionInput:
    """Input of ct_lesion from the stacks of its roles.

    stacks : "arterial" and "portal_venous", volumes in HU.
    Raises KeyError if a role is not there: the router binds both before a job is made.
    """
    arterial, portal_venous = stacks["arterial"], stacks["portal_venous"]
    headers = (portal_venous.headers[0], arterial.headers[0])
    return CtLesionInput(
        arterial=arterial.volume,
        portal_venous=portal_venous.volume,
        descriptions=_descriptions(headers),
        patient_age_years=_age_years(headers[0]),
    )


def _descriptions(headers: tuple[pydicom.Dataset, ...]) -> tuple[str, ...]:
    """Texts of the headers, each once, in a fixed order."""
    texts = (str(header.get(keyword) or "").strip() for header in headers for keyword in _DESCRIPTION_KEYWORDS)
    return tuple(dict.fromkeys(text for text in texts if text))


def _age_years(header: pydicom.Dataset) -> float | None:
    """Age at the study: Patient's Age (0010,1010), else from birth and study date; None where neither is usable."""
    stated = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", str(header.get("PatientAge") or ""))
    if stated:
        return int(stated[1]) * _DAYS[stated[2]] / _DAYS["Y"]
    born, scanned = (_date(header.get(keyword)) for keyword in ("PatientBirthDate", "StudyDate"))
    if born is None or scanned is None or scanned < born:
        return None
    return (scanned - born).days / _DAYS["Y"]


def _date(value: object) -> date | None:
    try:
        text = str(value or "").replace(".", "")
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None
