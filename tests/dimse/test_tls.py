"""DICOM over TLS: who gets through, who does not, and what an administrator is told."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import PASSWORD, Authority, Pair
from programs import need
from structlog.testing import capture_logs
from tiny_objects import write_objects

from dicom_node.dimse.observer import Observer
from dicom_node.dimse.requests import InMemory
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import echo, send_files
from dicom_node.dimse.tls import ReloadedContext, TlsFiles, TlsPeer, client_context, server_context, tls_context
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "hospital")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "stranger")


@pytest.fixture(scope="module")
def node_pair(hospital: Authority) -> Pair:
    return hospital.issue("node")


@pytest.fixture(scope="module")
def ct_pair(hospital: Authority) -> Pair:
    return hospital.issue("ct")


class Failures(Observer):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def handshake_failed(self, peer_host: str, reason: str) -> None:
        assert peer_host == "127.0.0.1"
        self.reasons.append(reason)


@contextmanager
def node(
    pair: Pair, ca: Path | None = None, kept: list[bytes] | None = None, observer: Observer | None = None
) -> Iterator[int]:
    files = TlsFiles(pair.certificate, pair.key, ca)
    sinks = InMemory(lambda _request, dataset: (kept if kept is not None else []).append(dataset))
    context = ReloadedContext(files)
    with running_scp("NODE", open_sink=sinks, port=None, tls_port=0, tls=context, observer=observer) as port:
        yield port


def reason(port: int, ca: Path | None, pair: Pair | None = None, server_name: str | None = None) -> str:
    files = TlsFiles(pair.certificate if pair else None, pair.key if pair else None, ca)
    return echo("127.0.0.1", port, "NODE", "CT1", 5.0, tls=TlsPeer(files, server_name)).reason


# ---- who gets through


def test_objects_arrive_over_tls(tmp_path: Path, hospital: Authority, node_pair: Pair) -> None:
    files = write_objects(tmp_path, 5)
    kept: list[bytes] = []
    peer = TlsPeer(TlsFiles(ca=hospital.pair.certificate))
    with node(node_pair, kept=kept) as port:
        results = send_files(list(files.values()), "127.0.0.1", port, "NODE", "CT1", tls=peer)
        assert [r.is_stored for r in results] == [True] * 5
        assert echo("127.0.0.1", port, "NODE", "CT1", 3.0).seconds is None  # without TLS
    assert len(kept) == 5


def test_a_node_that_cannot_be_trusted_is_not_talked_to(
    hospital: Authority, stranger: Authority, node_pair: Pair
) -> None:
    with node(node_pair) as port:
        assert reason(port, hospital.pair.certificate) == ""
        assert reason(port, node_pair.certificate) == ""  # the certificate itself is trusted, without its issuer
        assert reason(port, hospital.pair.certificate, server_name="localhost") == ""
        assert "unable to get local issuer" in reason(port, stranger.pair.certificate)
        assert "mismatch" in reason(port, hospital.pair.certificate, server_name="pacs.example")
        assert "cannot be read" in reason(port, Path("/nowhere/ca.pem"))
    with node(hospital.issue("old", days=-1)) as port:
        assert "expired" in reason(port, hospital.pair.certificate)


def test_mutual_tls_lets_in_whom_our_ca_knows(
    hospital: Authority, stranger: Authority, node_pair: Pair, ct_pair: Pair, eventually: Callable[..., None]
) -> None:
    ca, failures = hospital.pair.certificate, Failures()
    with node(node_pair, ca, observer=failures) as port:
        assert reason(port, ca, ct_pair) == ""
        assert "it may not trust our certificate" in reason(port, ca)
        assert "it may not trust our certificate" in reason(port, ca, stranger.issue("spy"))
        assert "it may not trust our certificate" in reason(port, ca, hospital.issue("old-ct", days=-1))
        eventually(lambda: len(failures.reasons) == 3, "three handshakes failed")
    assert failures.reasons == ["PEER_DID_NOT_RETURN_A_CERTIFICATE", *["CERTIFICATE_VERIFY_FAILED"] * 2]


@pytest.mark.parametrize(
    ("newest", "suites", "fits"),
    [
        (ssl.TLSVersion.TLSv1_3, None, True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256", False),  # no authenticated encryption
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", False),  # no forward secrecy
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", False),
    ],
)
def test_what_the_profile_allows(
    node_pair: Pair,
    newest: ssl.TLSVersion,
    suites: str | None,
    fits: bool,
    recwarn: pytest.WarningsRecorder,
    eventually: Callable[..., None],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = min(newest, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = newest
    if suites:
        context.set_ciphers(suites)
    failures = Failures()
    with node(node_pair, observer=failures) as port, socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            with context.wrap_socket(plain) as connection:
                assert fits
                assert connection.version() == {0x304: "TLSv1.3", 0x303: "TLSv1.2"}[newest]
                assert connection.compression() is None
        except ssl.SSLError:
            assert not fits
            eventually(lambda: failures.reasons, "the failure is told")


def test_a_slow_handshake_holds_nobody_up(hospital: Authority, node_pair: Pair) -> None:
    with node(node_pair) as port:
        waiting = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(20)]
        for connection in waiting:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        assert reason(port, hospital.pair.certificate) == ""
        for connection in waiting:
            connection.close()


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_sends_over_tls(
    tmp_path: Path, hospital: Authority, stranger: Authority, node_pair: Pair, ct_pair: Pair, profile: str
) -> None:
    storescu = need("storescu")
    files = list(write_objects(tmp_path, 3).values())
    ca = hospital.pair.certificate
    ours = ["+tls", ct_pair.key, ct_pair.certificate, "-pw", "+cf", ca]

    def sent(port: int, *options: object) -> int:
        command = [storescu, "-aet", "CT1", "-aec", "NODE", *options, profile, "127.0.0.1", str(port), *files]
        return subprocess.run([str(part) for part in command], capture_output=True, timeout=30).returncode

    kept: list[bytes] = []
    with node(node_pair, kept=kept) as port:
        assert sent(port, "+tla", "+cf", ca) == 0
        assert sent(port, *ours) == 0
        assert sent(port, "+tla", "+cf", stranger.pair.certificate) != 0
    assert len(kept) == 6
    with node(node_pair, ca, kept) as port:  # mutual
        assert sent(port, *ours) == 0
        assert sent(port, "+tla", "+cf", ca) != 0
    assert len(kept) == 9


# ---- files


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path, hospital: Authority, node_pair: Pair) -> None:
    good = TlsFiles(node_pair.certificate, node_pair.key)
    locked = hospital.issue("locked", password=PASSWORD)
    locked_files = TlsFiles(locked.certificate, locked.key)
    text = tmp_path / "text.pem"
    text.write_text("nothing")
    for files, told in [
        (replace(good, certificate=tmp_path / "none.pem"), "certificate .*none.pem cannot be read: No such file"),
        (replace(good, key=tmp_path / "none.key"), "key .*none.key cannot be read: No such file"),
        (replace(good, key=hospital.pair.key), "does not belong to the certificate"),
        (replace(good, certificate=text), "text.pem holds no certificate"),
        (replace(good, key=text), "text.pem holds no private key"),
        (replace(good, ca=text), "CA file .*text.pem holds no certificate"),
        (replace(good, key=None), "needs a certificate and its key"),
        (locked_files, "is encrypted and no password"),
        (replace(locked_files, key_password="wrong horse"), "the password is not the right one"),
        (replace(locked_files, key_password="x" * 5000), "password"),
    ]:
        with pytest.raises(ConfigurationError, match=told):
            server_context(files)
    server_context(replace(locked_files, key_password=PASSWORD))
    with pytest.raises(ConfigurationError, match="needs its key"):
        client_context(TlsFiles(certificate=node_pair.certificate))


@pytest.mark.parametrize(("days", "told"), [(-1, "has expired"), (10, "ends soon"), (365, None)])
def test_the_end_of_a_certificate_is_warned_of(hospital: Authority, days: int, told: str | None) -> None:
    pair = hospital.issue(f"for-{days}", days=days)
    with capture_logs() as logs:
        server_context(TlsFiles(pair.certificate, pair.key))
    assert [told in str(line["event"]) for line in logs if told] == ([True] if told else [])
    assert told is not None or not logs


def test_new_certificates_need_no_restart(tmp_path: Path, hospital: Authority, stranger: Authority) -> None:
    certificate, key = tmp_path / "node.pem", tmp_path / "node.key"

    def put(pair: Pair) -> None:
        certificate.write_bytes(pair.certificate.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    key.touch(mode=0o600)
    put(hospital.issue("first"))
    now = 0.0
    context = ReloadedContext(TlsFiles(certificate, key), clock=lambda: now)
    first = context()
    put(stranger.issue("second"))
    assert context() is first  # looked at every few seconds only
    now += 10
    second = context()
    assert second is not first
    key.write_text("broken")
    now += 10
    with capture_logs() as logs:
        assert context() is second
    assert [line["log_level"] for line in logs] == ["error"]
    put(hospital.issue("third"))
    now += 10
    assert context() not in (first, second)


def test_settings(tmp_path: Path, hospital: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = hospital.issue("settings", password=PASSWORD)
    assert tls_context(Settings()) is None
    files = {"tls_port": 0, "tls_certificate": locked.certificate, "tls_key": locked.key}
    (tmp_path / "password").write_text(PASSWORD + "\n")
    assert tls_context(Settings(**files, tls_key_password_file=tmp_path / "password")) is not None
    monkeypatch.setenv("DICOM_NODE_TLS_KEY_PASSWORD", PASSWORD)
    with_password = Settings(**files)
    assert tls_context(with_password) is not None
    assert PASSWORD not in repr(with_password)
    for given, told in [
        ({"dicom_port_enabled": False}, "DICOM_NODE_TLS_PORT is not set"),
        ({"tls_port": 0}, "DICOM_NODE_TLS_CERTIFICATE is not"),
        ({"tls_port": 0, "tls_certificate": locked.certificate}, "DICOM_NODE_TLS_KEY is not"),
        (files | {"tls_key_password_file": tmp_path / "none"}, "No such file"),
    ]:
        with pytest.raises(ConfigurationError, match=told):
            tls_context(Settings(**given))
