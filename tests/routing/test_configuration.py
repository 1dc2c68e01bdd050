"""The administrator's file: the contract's example, every problem with its line, and files that mean harm."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.errors import ConfigurationError
from dicom_node.routing.configuration import load_configuration
from dicom_node.routing.destination import DestinationTls
from dicom_node.routing.sender import Sender

EXAMPLE = """\
destinations:
  pacs: {type: dimse, host: 10.1.2.3, port: 104, ae_title: PACS}
senders:
  - {ae_title: MODALITY1, host: 10.1.2.0/24}
rules:
  - name: liver CT
    when: {all: [{attribute: Modality, equals: CT}, {attribute: StudyDescription, contains: liver}]}
    run: ct_lesion            # the pipeline says which roles it needs: arterial, portal_venous
    roles:                    # optional: override how a role is recognised
      arterial: {any: [{attribute: SeriesDescription, matches: "(?i)art|动脉"}]}
    send_to: [pacs]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(text)
    return str(caught.value).splitlines()


def rule(**parts: str) -> str:
    values = {"name": "a", "when": "{attribute: Modality, equals: CT}", "run": "ct_lesion", "send_to": "[]"} | parts
    return "rules:\n  - {" + ", ".join(f"{k}: {v}" for k, v in values.items()) + "}\n"


def test_the_contracts_example() -> None:
    configuration = load_configuration(EXAMPLE)
    pacs = configuration.destinations["pacs"]
    assert (pacs.host, pacs.port, pacs.ae_title) == ("10.1.2.3", 104, "PACS")
    assert [(s.ae_title, s.hosts) for s in configuration.senders] == [("MODALITY1", ("10.1.2.0/24",))]
    only = configuration.rules[0]
    assert (only.name, only.run, only.send_to, list(only.roles)) == ("liver CT", "ct_lesion", ("pacs",), ["arterial"])
    assert (only.enabled, only.report_refusal) == (True, False)
    assert load_configuration("").rules == ()


def test_all_problems_are_listed_with_their_lines() -> None:
    found = problems(
        "destinations:\n"
        "  pacs: {type: dimse, host: h, prt: 104, ae_title: PACS}\n"
        "rules:\n"
        "  - name: a\n"
        "    when:\n"
        "      all:\n"
        "        - {attribute: Modality, equals: CT}\n"
        "        - {attribute: Modalty, equals: CT}\n"
        "    run: ct_lesio\n"
        "    send_to: [pax]\n"
    )
    assert [line.split(":")[0] for line in found] == ["line 2", "line 2", "line 8", "line 9", "line 10"]
    assert "did you mean 'port'" in " ".join(found)
    assert "did you mean Modality" in found[2]
    assert "did you mean 'ct_lesion'" in found[3]
    assert "'pax' is not defined" in found[4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (rule(roles="{arteriel: {attribute: Modality, equals: CT}}"), "no role 'arteriel'"),
        (rule() + rule().removeprefix("rules:\n"), "is there twice"),
        (rule(when="{attribute: Modality, equals: CT, equals: MR}"), "'equals' is there twice"),
        ("rules: []\nrules: []\n", "'rules' is there twice"),
        (rule(when="{attribute: Modality, equals: 2020-01-01}"), "put it in quotes"),
        (rule(name="2020-99-99"), "put it in quotes"),
        (rule(enabled="maybe"), "true or false"),
        (rule(wen="x"), "did you mean 'when'"),
        (rule(when="{attribute: Modality, matches: '(a+)+'}"), "for ever"),
        ("destinations: {p: {host: h}}", "destination p: 'type' is missing; there is: dimse, sender, stow, folder"),
        ("destinations: {p: {type: pigeon}}", "type 'pigeon' is not known"),
        ("destinations: {p: {type: dimse, host: h, port: 0, ae_title: X}}", "a port from 1 to 65535"),
        ("destinations: {p: {type: dimse, host: h, port: '104', ae_title: X}}", "a port from 1 to 65535"),
        ("destinations: {p: {type: dimse, host: 10.0.0.0/8, port: 104, ae_title: X}}", "one address"),
        ("destinations: {p: {type: dimse, host: h, port: 104, ae_title: TOO_LONG_AN_AE_TITLE}}", "1 to 16 characters"),
        ("senders:\n  - {ae_title: X, host: 10.1.2.300/99}\n", "an address, a network"),
        ("senders:\n  - {ae_title: X, host: 10.1.2.300}\n", "an address, a network"),
        ("senders:\n  - {ae_title: 'A\\\\B', host: h}\n", "1 to 16 characters"),
        ("senders:\n  - {ae_title: X}\n", "line 2: sender X: 'host' is missing"),
        ("senders:\n  - ae_title: X\n    host: [10.1.2.3,\n      10.1.2.300]\n", "line 4: sender X: host '10.1.2.300'"),
        ("senders:\n  - {ae_title: X, host: []}\n", "the list is empty"),
        ("senders:\n  - {ae_title: X, host: {a: b}}\n", "a text or a list of texts"),
        (
            "senders:\n  - {ae_title: X, host: h, sop_classes: [CT Image]}\n",
            "no SOP Class of the standard has this name",
        ),
        ("senders:\n  - {ae_title: X, host: h, sop_classes: Verification SOP Class}\n", "is not a storage SOP Class"),
        ("senders:\n  - {ae_title: X, host: h, sop_classes: [1.2.840.10008.1.20.1]}\n", "is not a storage SOP Class"),
        ("senders:\n  - {ae_title: X, host: h, max_associations: 0}\n", "a whole number above 0"),
        ("senders:\n  - {ae_title: X, host: h, max_associations: true}\n", "a whole number above 0"),
        ("senders:\n  - {ae_title: X, host: h, max_objects_per_second: fast}\n", "a number above 0"),
        ("senders:\n  - {ae_title: X, host: h, max_megabytes_per_second: .inf}\n", "a number above 0"),
        ("senders:\n  - {ae_title: X, host: h, max_asociations: 3}\n", "did you mean 'max_associations'?"),
        (
            "senders:\n  - {ae_title: X, host: h, called_ae_titles: [A, 'a name too long for one']}\n",
            "1 to 16 characters",
        ),
        ("rule: []\n", "did you mean 'rules'"),
        ("- a\n", "pairs are needed"),
        ("5", "pairs are needed"),
        ("rules: {", "not YAML"),
    ],
)
def test_mistakes(text: str, told: str) -> None:
    assert told in "\n".join(problems(text))


@pytest.mark.parametrize(
    "host", ["10.1.2.0/24", "10.1.2.3", "::1", "fe80::/10", "ct-scanner.hospital.example", "localhost"]
)
def test_hosts_of_senders(host: str) -> None:
    assert load_configuration(f"senders:\n  - {{ae_title: X, host: '{host}'}}\n").senders[0].hosts == (host,)


def test_everything_about_a_sender() -> None:
    sender = load_configuration(
        "senders:\n"
        "  - ae_title: CT1\n"
        "    host: [10.1.2.0/24, ct1.hospital.example]\n"
        "    called_ae_titles: [LIVERNODE, OLDNODE]\n"
        "    sop_classes: [CT Image Storage, SegmentationStorage, 1.2.276.0.99.1]\n"
        "    max_associations: 4\n"
        "    max_objects_per_second: 200\n"
        "    max_megabytes_per_second: 12.5\n"
    ).senders[0]
    assert sender == Sender(
        "CT1",
        ("10.1.2.0/24", "ct1.hospital.example"),
        called_ae_titles=("LIVERNODE", "OLDNODE"),
        sop_classes=("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.276.0.99.1"),
        max_associations=4,
        max_objects_per_second=200.0,
        max_megabytes_per_second=12.5,
    )


def test_destinations_over_tls() -> None:
    head = "destinations:\n  pacs: {type: dimse, host: 10.1.2.3, port: 2762, ae_title: PACS, tls: "
    full = "{ca: /etc/ca.pem, certificate: /etc/node.pem, key: /etc/node.key, server_name: pacs.example}"
    for text, tls in [
        ("true", DestinationTls()),
        ("false", None),
        ("{ca: /etc/ca.pem}", DestinationTls("/etc/ca.pem")),
        (full, DestinationTls("/etc/ca.pem", "/etc/node.pem", "/etc/node.key", "pacs.example")),
    ]:
        assert load_configuration(head + text + "}\n").destinations["pacs"].tls == tls
    for text, told in [
        ("[]", "line 2: destination pacs: tls: true, false or a mapping"),
        ("yes please", "true, false or a mapping"),
        ("{certificate: /etc/node.pem}", "a certificate needs its key"),
        ("{ca: ca.pem}", "the full path is needed"),
        ("{cafile: /etc/ca.pem}", "unknown key 'cafile'"),
    ]:
        assert told in "\n".join(problems(head + text + "}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\nrules: []\n",
        "rules: *nothing\n",
        "rules: !!python/object/apply:os.system ['true']\n",
        "senders: !!set {a, b}\n",
        "? [a, b]\n: c\n",
        "rules:\n  - {<<: {name: a}, run: ct_lesion}\n",
        "rules: " + "[" * 3000 + "]" * 3000,
        "#" * 1_000_001,
        'rules: "\0"',
    ],
    ids=["bomb", "alias", "python", "set", "key", "merge", "deep", "long", "nul"],
)
def test_harm_is_refused_and_soon(text: str) -> None:
    began = time.process_time()
    assert problems(text)
    assert time.process_time() - began < 10


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(EXAMPLE)), length=st.integers(0, 12), put=st.text(max_size=6))
def test_any_edit_is_valid_or_told_with_a_line(at: int, length: int, put: str) -> None:
    try:
        load_configuration(EXAMPLE[:at] + put + EXAMPLE[at + length :])
    except ConfigurationError as error:
        assert str(error).strip()  # noqa: PT017 - both ends are right; another kind of error is not


def test_what_late_images_do_is_said_per_rule() -> None:
    head = "rules:\n  - {name: a, when: {attribute: Modality, equals: CT}, run: ct_lesion, send_to: []"
    assert load_configuration(head + "}\n").rules[0].late is None
    assert load_configuration(head + ", late: alert}\n").rules[0].late == "alert"
    assert problems(head + ", late: never}\n") == [
        "line 2: rule 'a': late 'never': one of rerun, alert, ignore is needed"
    ]


def test_stat_is_for_pipelines_that_answer_slice_by_slice() -> None:
    head = "rules:\n  - {name: a, when: {attribute: Modality, equals: MR}, run: mre_qc, send_to: []"
    plain, urgent = (load_configuration(head + end).rules[0] for end in ("}\n", ", stat: true}\n"))
    assert (plain.stat, urgent.stat, urgent.queue) == (False, True, "stat")
    assert plain.queue != "stat"
    assert problems(head + ", stat: soon}\n") != []
    assert problems(head.replace("mre_qc", "ct_lesion") + ", stat: true}\n") == [
        "line 2: rule 'a': stat is for pipelines that answer in seconds, slice by slice: mre_qc"
    ]
