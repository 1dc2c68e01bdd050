"""Foreign servers of the system tests, started from Debian's packages on free ports and stopped again."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodes import wait_until
from programs import need

from dicom_node.embedded.postgres import EmbeddedPostgres


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def debian_postgres(folder: Path) -> Iterator[str]:
    """Debian's PostgreSQL; yields its URL."""
    newest = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    server = EmbeddedPostgres(folder / "postgres", bin=newest)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def debian_rabbitmq(folder: Path) -> Iterator[str]:
    """Debian's RabbitMQ as user rabbitmq on loopback; yields its URL."""
    port, dist, epmd = free_port(), free_port(), free_port()
    account = pwd.getpwnam("rabbitmq")
    base = Path(tempfile.mkdtemp(prefix="rabbitmq-"))  # the test's own folder is closed to that user
    base.chmod(0o755)
    for path in (base, base / "mnesia", base / "log", base / "home"):
        path.mkdir(exist_ok=True)
        os.chown(path, account.pw_uid, account.pw_gid)
    (base / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    environment = {
        "PATH": "/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(base / "home"),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
        "RABBITMQ_LOG_BASE": str(base / "log"),
        "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    binary = next(path for path in Path("/usr/lib/rabbitmq").glob("lib/*/sbin/rabbitmq-server"))
    with (folder / "rabbitmq.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binary)], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=base, start_new_session=True,
            user=account.pw_uid, group=account.pw_gid, extra_groups=[],
        )  # fmt: skip
    try:
        wait_until(lambda: _amqp_answers(port), 150, f"RabbitMQ; log: {folder / 'rabbitmq.log'}")
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["epmd", "-port", str(epmd), "-kill"], capture_output=True, check=False)
        shutil.rmtree(base, ignore_errors=True)


def _amqp_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(2)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return len(connection.recv(8)) > 0
    except OSError:
        return False


class Orthanc:
    """Debian's Orthanc as a PACS: DICOM port, and REST to look inside."""

    def __init__(self, dicom_port: int, http_port: int, user: str = "") -> None:
        self.port, self.http_port = dicom_port, http_port
        self._headers = {"Authorization": "Basic " + b64encode(user.encode()).decode()} if user else {}

    def rest(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def raw(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", headers=self._headers)
        with urllib.request.urlopen(request, timeout=5) as response:
            content: bytes = response.read()
        return content

    def post(self, path: str, body: bytes) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", body, self._headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def knows(self, name: str, ae_title: str, port: int) -> None:
        """Tell it of a DICOM peer on this machine."""
        body = json.dumps([ae_title, "127.0.0.1", port]).encode()
        url = f"http://127.0.0.1:{self.http_port}/modalities/{name}"
        with urllib.request.urlopen(urllib.request.Request(url, body, self._headers, method="PUT"), timeout=5):
            pass

    def modalities(self, study_instance_uid: str) -> list[str]:
        """Modality of every instance of a study, sorted."""
        query = json.dumps({"Level": "Instance", "Query": {"StudyInstanceUID": study_instance_uid}, "Expand": True})
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/tools/find", query.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            instances = json.loads(response.read())
        return sorted(self.rest(f"/instances/{item['ID']}/simplified-tags")["Modality"] for item in instances)


@contextmanager
def debian_orthanc(folder: Path, user: str = "", **options: Any) -> Iterator[Orthanc]:
    """Orthanc with an empty store. user : name:password for our own look inside; options : more configuration."""
    dicom_port, http_port = free_port(), free_port()
    configuration = {
        "Name": "test", "StorageDirectory": str(folder / "orthanc"), "IndexDirectory": str(folder / "orthanc"),
        "HttpPort": http_port, "DicomPort": dicom_port, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "DicomCheckCalledAet": True, "DicomAlwaysAllowStore": True, "Plugins": [],
    } | options  # fmt: skip
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([need("Orthanc"), str(file)], stdout=log, stderr=subprocess.STDOUT)
    orthanc = Orthanc(dicom_port, http_port, user)

    def answers() -> bool:
        try:
            return bool(orthanc.rest("/system"))
        except OSError:
            return False

    try:
        wait_until(answers, 30, "Orthanc")
        yield orthanc
    finally:
        process.terminate()
        process.wait(15)
