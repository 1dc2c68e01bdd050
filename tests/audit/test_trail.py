"""The trail on its way to files and syslog: nothing is half written, nothing blocks, what is lost is said."""

import multiprocessing
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from schema import checked

from dicom_node.audit import Trail, events, open_trail
from dicom_node.audit.sinks import FolderSink, SyslogSink
from dicom_node.dimse.tls import TlsFiles, client_context
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings


def lines(folder: Path) -> list[str]:
    return [line for file in sorted(folder.glob("audit*.log")) for line in file.read_text("utf-8").splitlines()]


def append(folder: Path, number: int) -> None:
    sink = FolderSink(folder, 100_000_000, file_bytes=20_000)
    for turn in range(50):
        sink.write([(f"<AuditMessage n='{number}-{turn}' pad='{'x' * 200}'/>", False)] * 2)


def test_processes_share_the_files_and_rotate_them(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(folder, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = lines(folder)
    assert len(found) == 300
    assert all(line.startswith("<AuditMessage n=") and line.endswith("/>") for line in found)
    assert len(list(folder.glob("audit-*.log"))) >= 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.glob("audit*.log")} == {0o600}


def test_the_oldest_files_go(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, total_bytes=5_000, file_bytes=1_000)
    for number in range(100):
        sink.write([(f"{number:04d} " + "x" * 200, False)])
    found = lines(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("audit*.log")) < 7_000
    assert found[-1].startswith("0099")
    assert [int(line[:4]) for line in found] == list(range(100 - len(found), 100))


def test_a_process_tells_its_start_and_stop(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, audit_site="Hospital")
    with open_trail(settings, "receive-1") as trail:
        trail.note(events.configuration_imported("LIVERNODE", "admin", 2))
    messages = [checked(line) for line in lines(tmp_path / "audit")]
    assert [m[0][1].get("originalText") for m in messages] == [
        "Application Start",
        "Security Configuration",
        "Application Stop",
    ]
    assert {m.find("AuditSourceIdentification").get("AuditEnterpriseSiteID") for m in messages} == {"Hospital"}  # type: ignore[union-attr]


class Slow:
    """A sink that waits, or fails, as it is told."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.fails = False
        self.records: list[str] = []

    def write(self, records: list[tuple[str, bool]]) -> None:
        assert self.goes_on.wait(20)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.records += [xml for xml, _ in records]

    def close(self) -> None:
        pass


def test_a_sink_that_hangs_slows_nobody_down_and_what_is_lost_is_said() -> None:
    hanging, good = Slow(), Slow()
    good.goes_on.set()
    trail = Trail([hanging, good], "NODE", capacity=500)
    event = events.started("NODE", "receive")
    began = time.perf_counter()
    for _ in range(2000):
        trail.note(event)
    assert (time.perf_counter() - began) / 2000 < 100e-6
    hanging.goes_on.set()
    trail.close()
    said = [checked(xml).find("EventIdentification/EventOutcomeDescription") for xml in hanging.records]
    lost = [int(str(element.text).split()[0]) for element in said if element is not None]
    assert len(hanging.records) - len(lost) + sum(lost) == 2000
    assert sum(lost) >= 1000


def test_records_wait_while_the_disk_is_full(eventually: Callable[..., None]) -> None:
    sink = Slow()
    sink.goes_on.set()
    sink.fails = True
    trail = Trail([sink], "NODE")
    for number in range(3):
        trail.note(events.configuration_imported("NODE", "admin", number))
    time.sleep(0.05)
    assert sink.records == []
    sink.fails = False
    eventually(lambda: len(sink.records) == 3, "written when there is room")
    trail.close()
    assert [f"configuration:{number}" in xml for number, xml in enumerate(sink.records)] == [True] * 3


# ---- syslog


class Server:
    """A syslog server over TCP, with TLS or without, that reads octet-counted messages."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context = context
        self.messages: list[bytes] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                count = b""
                while digit := stream.read(1):
                    if digit == b" ":
                        self.messages.append(stream.read(int(count)))
                        count = b""
                    else:
                        count += digit
            except (OSError, ValueError):
                return

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)


def test_syslog_over_tcp_and_a_server_that_comes_back(eventually: Callable[..., None]) -> None:
    server = Server()
    now = 0.0
    sink = SyslogSink(f"tcp://127.0.0.1:{server.port}", clock=lambda: now)
    sink.write([("<a>Ü</a>", False), ("<b/>", True)])
    eventually(lambda: len(server.messages) == 2, "both arrived")
    header, text = server.messages[0].split(b"\xef\xbb\xbf")
    assert text.decode() == "<a>Ü</a>"
    fields = header.decode().split()
    assert (fields[0], fields[3], fields[4], fields[5:]) == (
        "<85>1",
        "dicom-node",
        str(os.getpid()),
        ["DICOM+RFC3881", "-"],
    )
    assert server.messages[1].startswith(b"<84>1 ")
    server.hang_up()

    def told() -> bool:
        try:
            sink.write([("<c/>", False)])
        except OSError:
            return True
        return False

    eventually(told, "the end of the connection is noticed")
    now += 60
    server.messages.clear()
    sink.write([("<c/>", False)])
    eventually(lambda: [m for m in server.messages if m.endswith(b"<c/>")], "sent again")


def test_syslog_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        SyslogSink(f"udp://127.0.0.1:{server.getsockname()[1]}").write([("<a/>", False)])
        assert server.recv(1000).endswith(b"<a/>")


def test_syslog_over_tls_checks_the_server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, eventually: Callable[..., None]
) -> None:
    folder = tmp_path_factory.mktemp("certificates")
    hospital, stranger = Authority(folder, "hospital"), Authority(folder, "stranger")
    pair = hospital.issue("syslog")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = Server(context)
    url = f"tls://127.0.0.1:{server.port}"
    with pytest.raises(OSError, match="unable to get local issuer"):
        SyslogSink(url, lambda: client_context(TlsFiles(ca=stranger.pair.certificate))).write([("<a/>", False)])
    settings = Settings(data_dir=tmp_path, audit_syslog=url, audit_syslog_ca=hospital.pair.certificate)
    with open_trail(settings, "receive-1"):
        eventually(lambda: server.messages, "the start is told")
    assert checked(server.messages[0].split(b"\xef\xbb\xbf")[1].decode())


@pytest.mark.parametrize("url", ["syslog.example", "http://syslog.example", "tls://", "udp://h:port", "tcp://h:99999"])
def test_a_syslog_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="udp://HOST, tcp://HOST or tls://HOST"):
        SyslogSink(url)
