"""The rows of the database as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Instance:
    """One stored SOP Instance: what was received, where its bytes lie, and the header values the node works with."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: str  # relative to the root of the file store
    sha256: str  # of the file's bytes
    size_bytes: int
    #: DICOM keyword -> plain JSON value (text, number, list) for the keywords in recognition/headers.py
    attributes: Mapping[str, Any] = field(default_factory=dict)
    association_id: str | None = None
    received_at: datetime | None = None
    is_conflict: bool = False  #: another Instance with this SOP Instance UID and other bytes came first
    is_ours: bool = False  #: made by this node (loop guard): stored, never routed


@dataclass(frozen=True)
class Association:
    """One association with a sender, as far as it concerned storage."""

    association_id: str
    receiver: str
    calling_ae_title: str
    called_ae_title: str
    peer_host: str
    opened_at: datetime
    closed_at: datetime | None
    state: str  #: open | released | aborted | lost (the receiver died)
    stored: int


@dataclass(frozen=True)
class Series:
    """One Series with a sample header for the rules."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    header: Mapping[str, Any]  #: DICOM JSON model (PS3.18 F) of one Instance without bulk data
    kind: str  #: verdict of recognition, e.g. "ct arterial", "localizer", "unknown"
    reason: str


@dataclass(frozen=True)
class Study:
    """One Study and where it stands."""

    study_instance_uid: str
    description: str
    first_received_at: datetime
    last_received_at: datetime
    #: collecting | waiting | ready | overdue | unrouted
    state: str
    reason: str
    #: when the scheduler must look at it again; None: only when something arrives
    look_again_at: datetime | None
    instances: int = 0


@dataclass(frozen=True)
class Job:
    """One run of one pipeline on one set of inputs. Unique per study + pipeline + fingerprint + edition."""

    id: int
    study_instance_uid: str
    pipeline: str
    fingerprint: str
    rule: str
    #: role -> {"series_instance_uid": str, "sop_instance_uids": [str, ...], "paths": [str, ...]}
    inputs: Mapping[str, Any]
    send_to: tuple[str, ...]
    queue: str
    #: waiting | running | done | refused | failed | superseded
    state: str
    reason: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None
    result: Mapping[str, Any] | None  #: result.json
    report_refusal: bool = False  #: the rule asks for an SR when the study is refused
    edition: str = ""  #: digest of pipeline version and bundles that answer; empty until a worker begins
    predecessor_id: int | None = None  #: the run of the same pipeline before, done or refused; set when it begins
    partial: str = ""  #: in words, which part of an exam it answers while more is on its way; empty: all that is there


@dataclass(frozen=True)
class Result:
    """One result object, its bytes kept in the file store so that every delivery sends the same."""

    id: int
    job_id: int
    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    sha256: str
    size_bytes: int
    kind: str = ""  #: what it is: "seg", "sr", ... (dicom_node.encoding.package)
    place: int = 0  #: in the order in which the objects of one job are sent


@dataclass(frozen=True)
class Delivery:
    """One result object on its way to one destination."""

    id: int
    result_id: int
    job_id: int
    study_instance_uid: str
    destination: str
    #: spare (kept in case) | waiting | sending | done | parked | replaced (the destination does not take it)
    state: str
    attempts: int
    not_before: datetime
    status: int | None  #: last DIMSE status
    reason: str
    delivered_at: datetime | None
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    kind: str = ""  #: of the result
    created_at: datetime | None = None


@dataclass(frozen=True)
class Commitment:
    """One Storage Commitment transaction with its last request."""

    id: int
    transaction_uid: str
    calling_ae_title: str
    called_ae_title: str
    peer_host: str
    request_id: str
    is_awaited: bool  #: the association of the request may still take the answer
    asked_at: datetime
    sop_class_uids: Sequence[str]
    sop_instance_uids: Sequence[str]
    failure_reasons: Sequence[int] | None  #: per reference 0 (committed) or a Failure Reason; None: not judged yet
    #: asked | offered | waiting | sending | done | parked
    state: str
    attempts: int  #: on new associations
    status: int | None  #: last status of N-EVENT-REPORT
    reason: str
    answered_at: datetime | None


@dataclass(frozen=True)
class CommitmentRequest:
    """One Storage Commitment transaction that an archive is asked."""

    id: int
    transaction_uid: str
    destination: str
    #: waiting | asking | requested | committed | failed | timed_out
    state: str
    attempts: int  #: associations on which it was tried
    status: int | None  #: last status of N-ACTION
    reason: str
    sop_class_uids: Sequence[str]
    sop_instance_uids: Sequence[str]


@dataclass(frozen=True)
class Event:
    """Something that happened, with its time."""

    id: int
    at: datetime
    study_instance_uid: str | None
    kind: str  #: "association", "stored", "duplicate", "conflict", "recognised", "waiting", "job", "delivery", ...
    text: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Configuration:
    """One version of the administrator's YAML file."""

    version: int
    document: str
    imported_at: datetime
    imported_by: str
