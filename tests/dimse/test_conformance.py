"""The conformance statement against what associations really negotiate, what the SCP answers and what is encoded."""

import ast
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context, build_role

from dicom_node.audit import events
from dicom_node.conformance import as_markdown, statement
from dicom_node.conformance.sample import Sample, sample_objects
from dicom_node.delivery import Fate, send
from dicom_node.dimse import admission
from dicom_node.dimse.admission import Reject
from dicom_node.dimse.commitment import report
from dicom_node.dimse.commitment_scu import ask
from dicom_node.dimse.contexts import supported_contexts
from dicom_node.dimse.requests import CommitmentAnswer, InMemory, Reference
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import echo
from dicom_node.dimse.status import status_of
from dicom_node.encoding.concepts import CONCEPTS
from dicom_node.encoding.package import KINDS
from dicom_node.routing.destination import Destination
from pipelines.findings import Map
from storage.records import Delivery

ROOT = Path(__file__).parents[2]
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: neither storage nor a service of ours: query and retrieve, worklist, printing, MPPS, protocols, inventories, nonsense
FOREIGN = (
    "1.2.840.10008.5.1.4.1.2.1.1",
    "1.2.840.10008.5.1.4.1.2.2.3",
    "1.2.840.10008.5.1.4.31",
    "1.2.840.10008.5.1.1.1",
    "1.2.840.10008.3.1.2.3.3",
    "1.2.840.10008.5.1.4.1.1.200.4",
    "1.2.840.10008.5.1.4.1.1.201.2",
    "1.2.840.10008.1.20.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.99.99",
)
FOREIGN_SYNTAXES = ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.6.1", "1.2.3.4")


@pytest.fixture(scope="module")
def claimed() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(statement()))
    return made


@pytest.fixture(scope="module")
def sample() -> Sample:
    return sample_objects()


class Desk:
    """Takes every request and answers none."""

    answer_within_s = 0.1

    def ask(self, request: object) -> None: ...

    def claim(self, request: object) -> None:
        return None

    def reported(self, request: object, status: object, reason: str) -> None: ...


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running_scp("NODE", open_sink=InMemory(lambda *_: None), commitment_desk=Desk()) as bound:
        yield bound


def accepted(port: int, pairs: list[tuple[str, str]], ext_neg: list[Any] | None = None) -> set[tuple[str, str]]:
    """Of (abstract syntax, Transfer Syntax), each proposed in a context of its own, those that are accepted."""
    found: set[tuple[str, str]] = set()
    ae = AE("ASKER")
    for start in range(0, len(pairs), 128):
        contexts = [build_context(*pair) for pair in pairs[start : start + 128]]
        association = ae.associate("127.0.0.1", port, contexts, "NODE", ext_neg=ext_neg)
        found |= {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        if association.is_established:
            association.release()
    return found


def is_supported(abstract_syntax: str, transfer_syntax: str) -> bool:
    """What the acceptor decides on one context."""
    found = supported_contexts([build_context(abstract_syntax, transfer_syntax)], storage_commitment=True)
    return any(transfer_syntax in map(str, context.transfer_syntax) for context in found)


def test_what_is_accepted_is_what_is_claimed(port: int, claimed: dict[str, Any]) -> None:
    storage, services = claimed["acceptor"]["storage"], claimed["acceptor"]["services"]
    syntaxes = [item["uid"] for item in storage["transfer_syntaxes"]]
    classes = [item["uid"] for item in storage["sop_classes"]]
    classes += ["1.2.276.0.99.1"] if storage["private_sop_classes"] else []
    expected = set(itertools.product(classes, syntaxes))
    expected |= {(item["uid"], syntax) for item in services for syntax in item["transfer_syntaxes"]}
    assert len(classes) > 150
    every = set(itertools.product([*classes, "1.2.276.0.99.1", *FOREIGN], [*syntaxes, *FOREIGN_SYNTAXES]))
    every |= set(itertools.product([item["uid"] for item in services], [*syntaxes, *FOREIGN_SYNTAXES]))
    judged = {pair for pair in every if is_supported(*pair)}
    assert judged == expected
    turns = itertools.cycle(syntaxes)  # on the wire every class, and every syntax a dozen times, in four seconds less
    proposed = {(uid, next(turns)) for uid in classes} | set(itertools.product(classes[:3], syntaxes))
    proposed |= {pair for pair in every if pair[0] in FOREIGN and pair[1] in syntaxes[:2]}
    proposed |= {pair for pair in every if pair[0] in {item["uid"] for item in services}}
    proposed |= set(itertools.product(classes[::40], FOREIGN_SYNTAXES))
    assert accepted(port, sorted(proposed)) == expected & proposed


def test_what_else_is_negotiated(port: int, claimed: dict[str, Any]) -> None:
    asynchronous = AsynchronousOperationsWindowNegotiation()
    asynchronous.maximum_number_operations_invoked = asynchronous.maximum_number_operations_performed = 5
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"someone", True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = STORAGE_COMMITMENT, b"\x02"
    role = build_role(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
    context = build_context(STORAGE_COMMITMENT)
    wanted = [asynchronous, identity, extended, role]
    association = AE("ASKER").associate("127.0.0.1", port, [context], "NODE", ext_neg=wanted)
    try:
        answer: Any = association.acceptor
        assert association.is_established
        assert answer.asynchronous_operations == (1, 1)
        assert answer.user_identity is None
        assert not answer.sop_class_extended
        roles = answer.role_selection[STORAGE_COMMITMENT]
        may = [name for name, is_so in (("SCU", roles.scu_role), ("SCP", roles.scp_role)) if is_so]
        assert may == claimed["acceptor"]["commitment_requestor_roles"]
        told = claimed["associations"]
        assert str(answer.implementation_class_uid) == told["implementation_class_uid"]
        assert answer.implementation_version_name == told["implementation_version_name"]
        assert answer.maximum_length == told["maximum_pdu_bytes"]["acceptor"]
        assert told["asynchronous_operations"] == 1
    finally:
        association.abort()


@pytest.fixture
def pacs(sample: Sample) -> Iterator[tuple[int, list[Any]]]:
    """A PACS of another maker that takes everything; port, and the association requests that it got."""
    requests: list[Any] = []
    ae = AE("PACS")
    for uid in {item.dataset.SOPClassUID for item in sample}:
        ae.add_supported_context(uid)
    ae.add_supported_context("1.2.840.10008.1.1")
    ae.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
    handlers = [
        (evt.EVT_REQUESTED, lambda event: requests.append(event.assoc.requestor)),
        (evt.EVT_C_STORE, lambda _event: 0x0000),
        (evt.EVT_N_ACTION, lambda _event: (0x0000, None)),
        (evt.EVT_N_EVENT_REPORT, lambda _event: (0x0000, None)),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1], requests
    finally:
        server.shutdown()


def proposals(requestor: Any) -> list[tuple[str, tuple[str, ...]]]:
    return sorted(
        (str(context.abstract_syntax), tuple(map(str, context.transfer_syntax)))
        for context in requestor.primitive.presentation_context_definition_list
    )


def saved(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_what_is_proposed_is_what_is_claimed(
    pacs: Any, claimed: dict[str, Any], sample: Sample, tmp_path: Path
) -> None:
    port, requests = pacs
    deliveries, outcomes = [], []
    for number, item in enumerate(sample):
        (tmp_path / f"{number}.dcm").write_bytes(saved(item.dataset))
        uids = str(item.dataset.SOPInstanceUID), str(item.dataset.SOPClassUID), item.transfer_syntax_uid
        deliveries.append(Delivery(number, 1, 1, f"2.25.{number}", "pacs", "sending", 1, NOW, None, "", None, *uids,
                                   path=f"{number}.dcm"))  # fmt: skip
    by_service: dict[str, list[Any]] = {}
    for item in claimed["requestor"]["contexts"]:
        by_service.setdefault(item["service"], []).append((item["uid"], tuple(item["transfer_syntaxes"])))
    destination = Destination("pacs", "dimse", host="127.0.0.1", port=port, ae_title="PACS")
    send(destination, deliveries, read_path=lambda path: tmp_path / path, calling_ae_title="NODE",
         report=lambda _delivery, outcome: outcomes.append(outcome))  # fmt: skip
    assert {outcome.fate for outcome in outcomes} == {Fate.DELIVERED}
    assert proposals(requests[-1]) == sorted(by_service["Storage"])
    assert {uid for uid, _ in by_service["Storage"]} == {item["sop_class_uid"] for item in claimed["objects"]}
    assert requests[-1].maximum_length == claimed["associations"]["maximum_pdu_bytes"]["requestor"]
    assert echo("127.0.0.1", port, "PACS", "NODE").seconds is not None
    assert proposals(requests[-1]) == by_service["Verification"]
    asked: list[Any] = []
    ask("2.25.2", (Reference("1.2", "2.25.3"),), "127.0.0.1", port, "PACS", "NODE",
        on_asked=asked.append, on_report=lambda _: None, wait_s=0.0)  # fmt: skip
    assert len(asked) == 1
    assert proposals(requests[-1])[0] in by_service["Storage Commitment"]
    assert not requests[-1].role_selection
    reported: list[Any] = []
    answer = CommitmentAnswer("0" * 16, "2.25.1", (Reference("1.2", "2.25.2"),), ())
    report([answer], "127.0.0.1", port, "PACS", "NODE", reported.append)
    assert [result.is_taken for result in reported] == [True]
    assert proposals(requests[-1])[0] in by_service["Storage Commitment"]
    roles = requests[-1].role_selection[STORAGE_COMMITMENT]
    (stated,) = (item for item in claimed["requestor"]["contexts"] if item["role_selection"])
    assert (roles.scu_role, roles.scp_role) == (stated["role"] == "SCU", stated["role"] == "SCP")


def raised(path: Path) -> set[str]:
    """Names of the statuses that a module refuses with."""
    if "RefusedError(" not in (text := path.read_text()):
        return set()
    return {
        call.args[0].id
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "RefusedError"
        and isinstance(call.args[0], ast.Name)
        and call.args[0].id.isupper()
    }


def test_statuses_are_those_that_the_scp_can_send(claimed: dict[str, Any]) -> None:
    from dicom_node.dimse import status

    found: dict[bool, set[int]] = {True: set(), False: set()}
    for path in (ROOT / "dicom_node").rglob("*.py"):
        is_about_commitment = path.name.startswith(("commitment", "answers"))
        found[is_about_commitment] |= {getattr(status, name) for name in raised(path)}
    told = {key: {item["status"] for item in rows} for key, rows in claimed["statuses"].items()}
    of_failures = {status_of(error)[0] for error in (OSError(28, "full"), MemoryError(), KeyError("x"))}
    assert told["store_scp"] == found[False] | of_failures | {status.SUCCESS}
    every = told["commitment_action_scp"] | told["commitment_event_scu"]
    assert every == found[True] | {status.SUCCESS, status.PROCESSING_FAILURE, status.RESOURCE_LIMITATION}
    assert told["commitment_action_scp"] - told["commitment_event_scu"] == {status.NO_SUCH_ACTION}
    assert told["commitment_event_scu"] - told["commitment_action_scp"] == {status.NO_SUCH_EVENT_TYPE}
    assert len(claimed["associations"]["rejects"]) == len(Reject)
    assert set(admission.REJECTED_WHEN) == set(Reject)


def codes(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in dataset.iterall():
        if element.keyword == "CodeValue":
            continue
        if element.VR == "SQ":
            for item in element.value:
                if "CodeValue" in item:
                    yield str(item.CodingSchemeDesignator), str(item.CodeValue)


def test_every_code_that_is_written_is_in_the_terminology(claimed: dict[str, Any], sample: Sample) -> None:
    terms = claimed["terminology"]
    listed = {(item["scheme"], item["value"]) for item in (*terms["concepts"], *terms["units"])}
    written = {pair for item in sample for pair in codes(item.dataset)}
    assert len(written) > 40
    assert written <= listed
    assert listed >= {(item.scheme, item.value) for item in CONCEPTS.values()}


def test_objects_are_those_that_are_built(claimed: dict[str, Any], sample: Sample) -> None:
    assert {item.kind for item in sample} == set(KINDS) == {item["kind"] for item in claimed["objects"]}
    for item in sample:
        (told,) = (one for one in claimed["objects"] if one["kind"] == item.kind)
        assert told["sop_class_uid"] == item.dataset.SOPClassUID


def test_contents_hold_for_other_objects_than_the_sample(claimed: dict[str, Any]) -> None:
    sys.path.append(str(ROOT / "tests/encoding"))
    try:
        from encoded_studies import ct_stack, liver_findings, provenance
    finally:
        sys.path.pop()
    from dicom_node.encoding.package import Package
    from dicom_node.encoding.results import encode_results

    sources = {role: ct_stack(role) for role in ("arterial", "portal_venous")}
    package = Package(tuple(KINDS), fall_backs=False)
    stiffness = Map("Stiffness", "elasticity", "kPa", np.full((12, 64, 64), 3.5, dtype=np.float32))
    findings = liver_findings(maps=(stiffness,))
    encoded = encode_results(findings, sources, provenance(slot=3), package=package)
    iods = {iod["kind"]: iod for iod in claimed["iods"]}
    assert {item.kind for item in encoded} == set(iods)
    for item in encoded:
        dataset = dcmread(BytesIO(item.data))
        told = {row["keyword"]: row for row in iods[item.kind]["attributes"]}
        written = {element.keyword for element in dataset}
        assert {keyword for keyword in written - told.keys()} <= {"IssuerOfPatientID", "PatientAge"}, item.kind
        for row in told.values():
            if row["source"] == "fixed" and row["keyword"] in dataset:
                value = dataset[row["keyword"]].value
                value = value if isinstance(value, str | int) else "\\".join(map(str, value))
                assert str(value) == row["value"], (item.kind, row)
        assert not any(element.tag.is_private for element in dataset.iterall())


def test_primitives_of_the_profile_are_claimed_where_they_are(claimed: dict[str, Any]) -> None:
    ihe = claimed["ihe"]
    assert ihe["actor"] == "Evidence Creator"
    assert (ihe["root"]["template"], ihe["root"]["title"]) == ("1500", "Imaging Measurement Report")
    there = {item["name"] for item in ihe["primitives"]}
    assert {"Qualitative findings", "Measurements", "Locations", "Tracking identifiers", "Image references"} <= there
    assert {"Regions, planar", "Regions, volumetric", "Parametric maps", "Key images"} <= there
    assert there.isdisjoint(ihe["not_supported"])


def test_audit_messages_are_those_that_are_written(claimed: dict[str, Any]) -> None:
    made = [
        events.started("N", "receive"),
        events.stopped("N", "receive"),
        events.association_refused("N", "A", "B", "10.0.0.1", "unknown"),
        events.instances_transferred("A", "N", "10.0.0.1", "1.2", "P", {"1.2": 1}, NOW, "released"),
        events.objects_refused("A", "N", "10.0.0.1", "1.2", {"refused": 1}),
        events.configuration_imported("N", "me", 1),
        events.records_lost("N", 1),
    ]
    makers = {
        name
        for name, value in vars(events).items()
        if getattr(value, "__annotations__", {}).get("return") is events.Event
    }
    assert len(makers - {"_activity"}) == len(made)
    written = {(event.code.value, event.type_code and event.type_code.value) for event in made}
    told = {(item["event"]["code"], item["type"] and item["type"]["code"]) for item in claimed["audit"]}
    assert told == written


def test_the_document_is_whole_and_needs_no_network_of_neurons(claimed: dict[str, Any]) -> None:
    text = as_markdown(claimed)
    parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert parts == [
        "Overview",
        "Introduction",
        "Implementation model",
        "Application entity specification",
        "Configuration",
        "Media interchange",
        "Character sets",
        "Security",
        "Annexes",
    ]
    for item in (*claimed["acceptor"]["storage"]["sop_classes"], *claimed["acceptor"]["storage"]["transfer_syntaxes"]):
        assert item["uid"] in text
    assert ("STOW" in text) is any(item["type"] == "stow" for item in claimed["destinations"])
    code = (
        "import sys; from dicom_node.cli import app\n"
        "try: app(['conformance', '--format', 'json'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'monai', 'SimpleITK'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == claimed
    assert done.stderr.strip() == "[]"
