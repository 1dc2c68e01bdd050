"""The application entity: presentation contexts, association policies, status codes (PS3.2: AE specifications)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydicom.uid import UID

from dicom_node.commitment import FAILURE_REASONS
from dicom_node.conformance.markdown import heading, hexadecimal, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.delivery import SENDERS, Fate
from dicom_node.delivery.dimse import outcome_of
from dicom_node.dimse.admission import REJECT_REASONS, REJECTED_WHEN, Reject
from dicom_node.dimse.association import MAX_PDU_BYTES
from dicom_node.dimse.contexts import (
    MAX_CONTEXTS,
    SERVICE_SYNTAXES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    commitment_report_context,
    commitment_request_context,
    standard_storage_classes,
    supported_contexts,
    verification_context,
)
from dicom_node.dimse.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, FileHead
from dicom_node.dimse.scu import ANNOUNCED_PDU_BYTES
from dicom_node.dimse.status import ACTION_STATUSES, EVENT_STATUSES, STORE_STATUSES, describe
from dicom_node.dimse.storing import StoreAnswer, store_contexts
from dicom_node.routing.destination import Destination

#: Statuses of a remote Storage SCP of which the statement says what this node does then (PS3.4 Table B.2-1).
_REMOTE_STATUSES = (
    *(0x0000, 0xB000, 0xB006, 0xB007),
    *(0xA700, 0xA900, 0xC000, 0x0110, 0x0111, 0x0117, 0x0122, 0x0124, 0x0213),
)
_FATES: Mapping[Fate, str] = {
    Fate.DELIVERED: "delivered",
    Fate.BUSY: "not delivered: sent again, with growing pauses",
    Fate.NOT_TAKEN: "not taken here: remembered, and what may go instead is sent",
    Fate.REFUSED: "not delivered: parked, and the reason is shown to the administrator",
}


def data(sample: Sample) -> dict[str, Any]:
    """Services, contexts of both directions, policies and statuses."""
    return {
        "services": _services(),
        "acceptor": _acceptor(),
        "requestor": {"contexts": _requested(sample), "one_syntax_per_context": True},
        "associations": {
            "application_context": "1.2.840.10008.3.1.1.1",
            "implementation_class_uid": IMPLEMENTATION_CLASS_UID,
            "implementation_version_name": IMPLEMENTATION_VERSION_NAME,
            "maximum_pdu_bytes": {"acceptor": MAX_PDU_BYTES, "requestor": ANNOUNCED_PDU_BYTES},
            "maximum_contexts": MAX_CONTEXTS,
            "asynchronous_operations": 1,
            "rejects": [
                {
                    "result": reject.value[0],
                    "source": reject.value[1],
                    "reason": reject.value[2],
                    "meaning": REJECT_REASONS[reject.value[1:]],
                    "when": REJECTED_WHEN[reject],
                }
                for reject in Reject
            ],
        },
        "statuses": {
            "store_scp": _statuses(STORE_STATUSES),
            "store_scu": [_reaction(status) for status in _REMOTE_STATUSES],
            "commitment_action_scp": _statuses(ACTION_STATUSES),
            "commitment_failure_reasons": _statuses(FAILURE_REASONS),
            "commitment_event_scu": _statuses(EVENT_STATUSES),
        },
    }


def _services() -> list[dict[str, Any]]:
    rows = [
        ("Verification", VERIFICATION, "SCP", False, "answers C-ECHO"),
        ("Storage", "", "SCP", False, "takes images"),
        ("Storage Commitment Push Model", STORAGE_COMMITMENT, "SCP", False, "says whether images are safe"),
        ("Storage Commitment Push Model", STORAGE_COMMITMENT, "SCP", True, "the same, when the asker has gone"),
    ]
    if "dimse" in SENDERS:
        rows += [
            ("Verification", VERIFICATION, "SCU", True, "tests a destination on request (`dicom-node doctor`)"),
            ("Storage", "", "SCU", True, "sends results"),
            ("Storage Commitment Push Model", STORAGE_COMMITMENT, "SCU", True, "asks whether results are safe"),
            ("Storage Commitment Push Model", STORAGE_COMMITMENT, "SCU", False, "takes the answer later"),
        ]
    if "stow" in SENDERS:
        rows.append(("DICOMweb Studies Service, Store (STOW-RS)", "", "user agent", True, "sends results"))
    names = ("service", "sop_class_uid", "role", "initiates", "purpose")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _acceptor() -> dict[str, Any]:
    (commitment,) = supported_contexts([commitment_report_context()[0]], storage_commitment=True)
    syntaxes = [{"uid": uid, "name": UID(uid).name, "why": why} for uid, why in TRANSFER_SYNTAXES.items()]
    return {
        "storage": {
            "sop_classes": [{"uid": uid, "name": name} for uid, name in standard_storage_classes().items()],
            "private_sop_classes": True,
            "transfer_syntaxes": syntaxes,
            "level": "2 (Full)",
            "coercion": False,
        },
        "services": [
            {"uid": uid, "name": UID(uid).name, "transfer_syntaxes": list(SERVICE_SYNTAXES), "role": "SCP"}
            for uid in (VERIFICATION, STORAGE_COMMITMENT)
        ],
        "commitment_instance_uid": STORAGE_COMMITMENT_INSTANCE,
        "commitment_requestor_roles": [
            role for role, may in (("SCU", commitment.scu_role), ("SCP", commitment.scp_role)) if may
        ],
    }


def _requested(sample: Sample) -> list[dict[str, Any]]:
    """What is proposed on associations that this node opens, made by the functions that propose."""
    heads = [FileHead(str(o.dataset.SOPClassUID), "", o.transfer_syntax_uid, 0) for o in sample]
    named = standard_storage_classes()
    reporting, role = commitment_report_context()
    proposals = [("Storage Commitment", reporting, "SCP" if role.scp_role else "SCU", True, "answers, later")]
    if "dimse" in SENDERS:
        usual = Destination("", "dimse").transfer_syntaxes
        proposals += [("Storage", context, "SCU", False, "results") for context in store_contexts(heads, usual)]
        asking = commitment_request_context()
        proposals.append(("Storage Commitment", asking, "SCU", False, "asks whether results are safe"))
        proposals.append(("Verification", verification_context(), "SCU", False, "test of a destination"))
    return [
        {
            "service": service,
            "uid": str(context.abstract_syntax),
            "name": named.get(str(context.abstract_syntax)) or UID(str(context.abstract_syntax)).name,
            "transfer_syntaxes": [str(syntax) for syntax in context.transfer_syntax],
            "role": role_name,
            "role_selection": is_negotiated,
            "purpose": purpose,
        }
        for service, context, role_name, is_negotiated, purpose in proposals
    ]


def _statuses(table_: Mapping[int, str]) -> list[dict[str, Any]]:
    return [{"status": status, "when": when} for status, when in table_.items()]


def _reaction(status: int) -> dict[str, Any]:
    does = _FATES[outcome_of(StoreAnswer(status, "")).fate]
    return {"status": status, "meaning": describe(status), "does": does}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The specification of the application entity."""
    yield from heading(1, "Application entity specification")
    yield from _acceptor_lines(found["acceptor"])
    yield from _requestor_lines(found["requestor"])
    yield from _association_lines(found["associations"])
    yield from _status_lines(found["statuses"])
    if any(item["type"] == "stow" for item in found["destinations"]):
        yield from heading(2, "DICOMweb")
        yield from paragraph(
            "User agent of the Studies Service, Store transaction (PS3.18 section 10.5): POST of "
            '`multipart/related; type="application/dicom"` to the destination\'s `/studies`. No other DICOMweb '
            "service is used, and none is offered."
        )


def _acceptor_lines(acceptor: Mapping[str, Any]) -> Iterator[str]:
    storage = acceptor["storage"]
    yield from heading(2, "Presentation contexts accepted")
    yield from paragraph(
        "Each of the storage SOP Classes below, and every private SOP Class (a UID outside of 1.2.840.10008), in each "
        "of the storage Transfer Syntaxes; the services in theirs. Where one context offers several Transfer Syntaxes "
        "the requestor's order decides, but Explicit VR Little Endian goes before Implicit. The administrator may "
        "narrow the SOP Classes for a sender. Any other abstract syntax is rejected as not supported."
    )
    rows = [(item["name"], item["uid"], item["why"]) for item in storage["transfer_syntaxes"]]
    yield from table(("Transfer Syntax of storage", "UID", "Why"), rows)
    services = [(item["name"], item["uid"], item["transfer_syntaxes"], item["role"]) for item in acceptor["services"]]
    yield from table(("SOP Class of a service", "UID", "Transfer Syntaxes", "Role"), services)
    yield from table(("Storage SOP Class", "UID"), [(item["name"], item["uid"]) for item in storage["sop_classes"]])
    yield from heading(3, "Extended negotiation and role selection")
    yield from paragraph(
        "SOP Class Extended, Asynchronous Operations Window and User Identity negotiation are not answered. SCP/SCU "
        "Role Selection is answered for Storage Commitment Push Model alone: the requestor may be its "
        f"{' and its '.join(acceptor['commitment_requestor_roles'])}."
    )
    yield from heading(3, "Storage")
    yield from paragraph(
        f"Level of conformance {storage['level']}: every element is kept, private ones too. The Dataset is stored as "
        "it was sent, in its Transfer Syntax, and no element is coerced. An object with the same SOP Instance UID and "
        "the same bytes is answered with Success and kept once; with other bytes both versions are kept, the first one "
        "is used, and the conflict is shown to the administrator."
    )
    yield from heading(3, "Storage Commitment")
    yield from paragraph(
        f"SOP Instance {acceptor['commitment_instance_uid']}. Committed is what is indexed and lies whole on disk. "
        "The answer goes by N-EVENT-REPORT on the association of the request, or later on one that this node opens to "
        "the address that the administrator has given. Objects are kept without a time limit; nothing is deleted."
    )


def _requestor_lines(requestor: Mapping[str, Any]) -> Iterator[str]:
    yield from heading(2, "Presentation contexts proposed")
    yield from paragraph(
        "Only what is about to be sent is proposed, each SOP Class and Transfer Syntax in a context of its own. The "
        "syntaxes of results and their order can be set for each destination; an object goes in the first one that is "
        "accepted, Implicit VR written from Explicit without loss. A SOP Class that is not accepted is remembered, and "
        "the objects that may stand for it are sent (see Objects created)."
    )
    rows = [
        (item["name"], item["uid"], item["transfer_syntaxes"], item["role"], item["role_selection"], item["purpose"])
        for item in requestor["contexts"]
    ]
    columns = ("SOP Class", "UID", "Transfer Syntaxes", "Role", "Role selection", "What for")
    yield from table(columns, rows)
    yield from heading(3, "Sequence")
    yield from paragraph(
        "The objects of one answer are sent in one association, those that a report refers to before the report. A "
        "delivery that fails is tried again with growing pauses and sends the same bytes under the same UIDs."
    )


def _association_lines(associations: Mapping[str, Any]) -> Iterator[str]:
    pdu = associations["maximum_pdu_bytes"]
    yield from heading(2, "Association policies")
    rows: Sequence[Sequence[object]] = (
        ("Application context", associations["application_context"]),
        ("Implementation Class UID", associations["implementation_class_uid"]),
        ("Implementation Version Name", associations["implementation_version_name"]),
        ("Maximum PDU received, as acceptor", f"{pdu['acceptor']} bytes"),
        ("Maximum PDU received, as requestor", f"{pdu['requestor']} bytes"),
        ("Presentation contexts of one association, at most", associations["maximum_contexts"]),
        ("Outstanding operations of one association", associations["asynchronous_operations"]),
    )
    yield from table(("Property", "Value"), rows)
    yield from heading(3, "Association acceptance")
    yield from paragraph(
        "The first entry of `senders` that fits calling AE title and address decides. Until senders are configured "
        "only callers on the same machine are let in. An association request is otherwise rejected:"
    )
    rows = [(r["result"], r["source"], r["reason"], r["meaning"], r["when"]) for r in associations["rejects"]]
    yield from table(("Result", "Source", "Reason", "Meaning", "When"), rows)


def _status_lines(statuses: Mapping[str, Any]) -> Iterator[str]:
    yield from heading(2, "Status codes")

    def rows(key: str) -> list[tuple[str, str]]:
        return [(hexadecimal(item["status"]), item["when"]) for item in statuses[key]]

    yield from heading(3, "C-STORE, as SCP")
    yield from table(("Status", "When"), rows("store_scp"))
    yield from heading(3, "C-STORE, as SCU")
    reactions = [(hexadecimal(item["status"]), item["meaning"], item["does"]) for item in statuses["store_scu"]]
    yield from table(("Status", "Meaning", "What this node does"), reactions)
    yield from heading(3, "N-ACTION of Storage Commitment, as SCP")
    yield from table(("Status", "When"), rows("commitment_action_scp"))
    yield from heading(3, "N-EVENT-REPORT of Storage Commitment, as SCU")
    yield from table(("Status", "When"), rows("commitment_event_scu"))
    yield from heading(3, "Failure Reason (0008,1197) of Storage Commitment, as SCP")
    yield from table(("Failure Reason", "When"), rows("commitment_failure_reasons"))
