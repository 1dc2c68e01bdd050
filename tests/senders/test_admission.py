"""Admission: who is let in, what is taken, and limits that hold over processes."""

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node import senders as module
from dicom_node.dimse.admission import NotAdmittedError, Reject
from dicom_node.routing.configuration import load_configuration
from dicom_node.routing.sender import Sender
from dicom_node.senders import SenderAdmission, Senders, is_at

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def written(folder: Path, entries: list[dict[str, Any]], stamp_ns: int = 1) -> Senders:
    path = folder / "senders.json"
    path.write_text(json.dumps(entries))
    os.utime(path, ns=(stamp_ns, stamp_ns))
    return Senders(path, "NODE", folder / "run")


def rejected(senders: Senders, calling: str, called: str = "NODE", host: str = "10.1.2.3") -> Reject:
    with pytest.raises(NotAdmittedError) as caught:
        senders.admit(calling, called, host)
    return caught.value.reject


# ---- who


def test_without_senders_loopback_alone_is_let_in(tmp_path: Path) -> None:
    senders = Senders(tmp_path / "senders.json", "NODE", tmp_path / "run")
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert senders.admit("ANY", "NODE", host).takes(CT)
    assert rejected(senders, "ANY") is Reject.CALLING_AE_TITLE
    assert rejected(senders, "ANY", "OTHER", "127.0.0.1") is Reject.CALLED_AE_TITLE
    assert rejected(senders, "ANY", host="no address") is Reject.CALLING_AE_TITLE


def test_ae_title_and_host_and_called_ae_title(tmp_path: Path) -> None:
    senders = written(
        tmp_path,
        [
            {"ae_title": "CT1", "host": ["10.1.2.0/24", "fd00::/8"]},
            {"ae_title": "CT1", "host": "10.9.9.9", "called_ae_titles": ["OLD", "NODE"]},
            {"ae_title": "*", "host": "localhost"},
        ],
    )
    for host in ("10.1.2.77", "fd12::1", "::ffff:10.1.2.3", "10.9.9.9"):
        senders.admit("CT1", "NODE", host)
    senders.admit(" CT1 ", "NODE  ", "10.1.2.3")
    senders.admit("ANY", "NODE", "127.0.0.1")
    senders.admit("CT1", "OLD", "10.9.9.9")
    assert rejected(senders, "CT1", host="10.1.3.3") is Reject.CALLING_AE_TITLE
    assert rejected(senders, "ct1") is Reject.CALLING_AE_TITLE
    assert rejected(senders, "CT1", "OLD") is Reject.CALLED_AE_TITLE
    assert rejected(senders, "CT1", "OTHER", "10.9.9.9") is Reject.CALLED_AE_TITLE


def test_an_import_takes_effect_at_once_and_a_broken_list_does_not(tmp_path: Path) -> None:
    senders = written(tmp_path, [{"ae_title": "CT1", "host": "10.1.2.3"}])
    senders.admit("CT1", "NODE", "10.1.2.3")
    written(tmp_path, [{"ae_title": "CT2", "host": "10.1.2.3"}], 2)
    senders.admit("CT2", "NODE", "10.1.2.3")
    assert rejected(senders, "CT1") is Reject.CALLING_AE_TITLE
    for broken in ('{"ae_title"', '["CT1"]', "7", '[{"ae_title": "CT1", "max_associations": "many"}]'):
        (tmp_path / "senders.json").write_text(broken)
        senders.admit("CT2", "NODE", "10.1.2.3")
        assert rejected(senders, "OTHER", host="127.0.0.1") is Reject.CALLING_AE_TITLE
    (tmp_path / "senders.json").unlink()
    senders.admit("CT2", "NODE", "10.1.2.3")


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(addresses, addresses, st.integers(0, 128))
def test_networks_are_those_of_the_standard_library(peer: Any, base: Any, prefix: int) -> None:
    network = ipaddress.ip_network((int(base), min(prefix, base.max_prefixlen)), strict=False)
    if base.version == 6:
        network = ipaddress.ip_network((base, prefix), strict=False)
    mapped = getattr(peer, "ipv4_mapped", None) or peer
    assert is_at(str(peer), str(network)) == (mapped.version == network.version and mapped in network)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_peer_says_it_is_not_let_in_by_it(calling: str, called: str, host: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        senders = written(Path(folder), [{"ae_title": "SECRET-AE", "host": "10.1.2.0/24", "max_associations": 1}])
        with pytest.raises(NotAdmittedError):
            senders.admit(calling, called, host)


def test_a_name_keeps_its_addresses_while_the_name_service_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [["10.1.1.1"], OSError("away"), ["10.2.2.2"]]
    asked = threading.Semaphore(0)

    def ask(name: str, _port: None) -> Any:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        asked.release()
        if isinstance(answer, OSError):
            raise answer
        return [(2, 1, 6, "", (address, 0)) for address in answer]

    monkeypatch.setattr("socket.getaddrinfo", ask)
    monkeypatch.setattr(module, "NAMES_KEPT_S", 0.0)
    names = module._Names()
    assert names.addresses("ct1.example") == {"10.1.1.1"}
    assert names.addresses("ct1.example") == {"10.1.1.1"}  # asks again behind our back, in vain
    assert asked.acquire(timeout=5)
    assert asked.acquire(timeout=5)  # the second one
    deadline = time.monotonic() + 5
    while names.addresses("ct1.example") != {"10.2.2.2"} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names.addresses("ct1.example") == {"10.2.2.2"}


# ---- what


def test_sop_classes_by_name_keyword_and_uid_reach_the_receiver(tmp_path: Path) -> None:
    text = (
        "senders:\n  - {ae_title: CT1, host: '*', sop_classes: [ct image storage, MRImageStorage, 1.2.3.4]}\n"
        "  - {ae_title: CT2, host: '*'}\n"
    )
    senders = written(tmp_path, [sender.as_json() for sender in load_configuration(text).senders])
    one, any_class = senders.admit("CT1", "NODE", "10.1.1.1"), senders.admit("CT2", "NODE", "10.1.1.1")
    assert [one.takes(uid) for uid in (CT, MR, "1.2.3.4", "1.2.840.10008.5.1.4.1.1.7")] == [True, True, True, False]
    assert any_class.takes("1.2.840.10008.5.1.4.1.1.7")


senders_of_any_kind = st.builds(
    Sender,
    st.text(min_size=1, max_size=16),
    st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
    called_ae_titles=st.none() | st.lists(st.text(min_size=1), min_size=1).map(tuple),
    sop_classes=st.none() | st.lists(st.text(min_size=1), min_size=1).map(tuple),
    max_associations=st.none() | st.integers(1, 1000),
    max_objects_per_second=st.none() | st.floats(0.001, 1e6),
    max_megabytes_per_second=st.none() | st.floats(0.001, 1e6),
)


@given(senders_of_any_kind)
def test_nothing_is_lost_between_scheduler_and_receiver(sender: Sender) -> None:
    assert Sender.from_json(json.loads(json.dumps(sender.as_json()))) == sender


# ---- how much


def test_the_limit_of_associations_of_one_sender(tmp_path: Path) -> None:
    entries = [{"ae_title": "CT1", "host": "*", "max_associations": 2}, {"ae_title": "CT2", "host": "*"}]
    one, other_receiver = written(tmp_path, entries), written(tmp_path, entries)
    first = one.admit("CT1", "NODE", "10.1.1.1")
    other_receiver.admit("CT1", "NODE", "10.1.1.2")
    assert rejected(one, "CT1") is Reject.LOCAL_LIMIT
    one.admit("CT2", "NODE", "10.1.1.1")
    first.release()
    first.release()
    one.admit("CT1", "NODE", "10.1.1.1")
    assert rejected(other_receiver, "CT1") is Reject.LOCAL_LIMIT


def test_a_killed_receiver_gives_its_associations_back(tmp_path: Path) -> None:
    senders = written(tmp_path, [{"ae_title": "CT1", "host": "*", "max_associations": 1}])
    code = (
        "import sys\nfrom pathlib import Path\nfrom dicom_node.senders import Senders\n"
        "folder = Path(sys.argv[1])\n"
        "Senders(folder / 'senders.json', 'NODE', folder / 'run').admit('CT1', 'NODE', '10.1.1.1')\n"
        "print('in', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        assert rejected(senders, "CT1") is Reject.LOCAL_LIMIT
        other.kill()
        other.wait(10)
        senders.admit("CT1", "NODE", "10.1.1.1")


def test_limits_that_cannot_be_kept_let_nobody_in(tmp_path: Path) -> None:
    senders = written(tmp_path, [{"ae_title": "CT1", "host": "*", "max_associations": 2}])
    (tmp_path / "run").write_text("no folder")
    assert rejected(senders, "CT1") is Reject.CONGESTION


def test_a_sender_without_limits_costs_nothing() -> None:
    admission = SenderAdmission(None, None, None)
    per_call_s = min(timeit.repeat(lambda: admission.pause_s(500_000), number=20_000, repeat=5)) / 20_000
    assert per_call_s < 1e-6
