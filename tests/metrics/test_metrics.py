"""What the parts count, what the console shows, and that neither costs or tells too much."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from psycopg_pool import ConnectionPool
from raw_scu import EndedError, RawScu
from receiver_process import ReceiverProcess
from tiny_objects import dataset_bytes, new_uid

import storage.deliveries
import storage.instances
import storage.jobs
import storage.results
from dicom_node.console.app import console_app
from dicom_node.exposition import exposition, index_lag
from dicom_node.metrics import folder_of, forget_all
from dicom_node.settings import Settings
from storage.database import open_pool
from storage.records import Instance

ROOT = Path(__file__).parents[2]
Samples = dict[tuple[str, ...], float]


@pytest.fixture
def pool(fresh_database_url: str) -> Iterator[ConnectionPool]:
    with open_pool(fresh_database_url) as opened:
        yield opened


@pytest.fixture
def no_database() -> ConnectionPool:
    return ConnectionPool("postgresql://nobody@127.0.0.1:1/nothing", open=False)  # answers at once that it cannot


def read(text: str) -> Samples:
    """(name, label values in the order of label names …) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(data_dir: Path, pool: ConnectionPool) -> Samples:
    return read(exposition(Settings(data_dir=data_dir), pool).decode())


@contextmanager
def console(pool: ConnectionPool, settings: Settings) -> Iterator[str]:
    """The console on a free port; its URL."""
    server = uvicorn.Server(uvicorn.Config(console_app(pool, settings), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def part(data_dir: Path, name: str, code: str, check: bool = True) -> int:
    """Run code in a process that counts as a part of the node."""
    program = (
        "from dicom_node import metrics\nfrom pathlib import Path\nimport os\n"
        f"metrics.start(Path({str(data_dir)!r}), {name!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program + code], cwd=ROOT, check=check, timeout=60)
    return done.returncode


def test_the_parts_add_up_also_those_that_were_killed(tmp_path: Path, no_database: ConnectionPool) -> None:
    (tmp_path / "senders.json").write_text(json.dumps([{"ae_title": "CT1", "host": ""}, {"ae_title": "*"}]))
    store = "for _ in range(3): metrics.object_stored('CT1', 1000, 0.003)\nmetrics.association_opened('CT1')\n"
    part(tmp_path, "receive-1", store)
    part(tmp_path, "receive-2", store + "metrics.object_refused('CT1', 0xA700)\nmetrics.rate_limited('CT1', 1.5)")
    killed = "metrics.count_now()\nos.kill(os.getpid(), 9)"
    assert part(tmp_path, "receive-2", store + killed, check=False) == -signal.SIGKILL
    found = scraped(tmp_path, no_database)
    assert found["dicom_node_objects_stored_total", "CT1"] == 9
    assert found["dicom_node_object_bytes_total", "CT1"] == 9000
    assert found["dicom_node_objects_refused_total", "CT1", "A700"] == 1
    assert found["dicom_node_object_seconds_count",] == 9
    assert found["dicom_node_object_seconds_bucket", "0.002"] == 0
    assert found["dicom_node_object_seconds_bucket", "0.005"] == 9
    assert found["dicom_node_rate_limit_pause_seconds_total", "CT1"] == 1.5
    assert found["dicom_node_associations_open",] == 2
    part(tmp_path, "receive-2", "pass")  # started again: what the dead one had open is gone
    assert scraped(tmp_path, no_database)["dicom_node_associations_open",] == 1
    assert len(list(folder_of(tmp_path).glob("*.db"))) == 2 * 3  # a restart leaves no files behind
    alive = next(folder_of(tmp_path).glob("receive-1.*.alive"))
    os.utime(alive, (1, 1))
    part(tmp_path, "receive-2", "pass")  # nobody has heard of the other for long
    assert scraped(tmp_path, no_database)["dicom_node_objects_stored_total", "CT1"] == 6
    forget_all(tmp_path)
    assert ("dicom_node_objects_stored_total", "CT1") not in scraped(tmp_path, no_database)


def test_a_scanner_of_the_network_cannot_blow_the_labels_up(tmp_path: Path, no_database: ConnectionPool) -> None:
    (tmp_path / "senders.json").write_text(json.dumps([{"ae_title": "CT1"}]))
    part(
        tmp_path,
        "receive-1",
        "for n in range(5000):\n"
        "    metrics.association_opened(f'AE{n}'); metrics.association_closed(f'AE{n}', 'aborted')\n"
        "    metrics.object_stored(f'DOE^JANE{n}', 1, 0.1); metrics.object_refused(f'AE{n}', 0xC000)\n"
        "    metrics.association_refused(f'reason {n}')\n",
    )
    text = exposition(Settings(data_dir=tmp_path), no_database).decode()
    assert len(text) < 20_000
    assert "DOE" not in text
    found = read(text)
    assert found["dicom_node_associations_accepted_total", "other"] == 5000
    assert found["dicom_node_objects_stored_total", "other"] == 5000
    assert found["dicom_node_associations_rejected_total", "other"] == 5000 - 64


def test_a_note_costs_little(tmp_path: Path) -> None:
    part(
        tmp_path,
        "receive-1",
        "import time\n"
        "best = 1\n"
        "for _ in range(20):\n"
        "    begun = time.perf_counter()\n"
        "    for _ in range(1000): metrics.object_stored('CT1', 524288, 0.001)\n"
        "    best = min(best, (time.perf_counter() - begun) / 1000)\n"
        "begun = time.process_time()\n"
        "metrics.count_now()\n"
        "counting = (time.process_time() - begun) / 20000\n"
        "print(f'{best * 1e6:.2f} us a note')\n"
        "assert best < 5e-6, best\n",
    )


def test_without_room_for_its_files_a_part_still_works(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    part(tmp_path, "receive-1", "metrics.object_stored('CT1', 1, 1.0)\nmetrics.count_now()")


def test_the_files_have_their_blocks_from_the_start(tmp_path: Path) -> None:
    """A write into a hole of a mapped file would kill the process on a full disk."""
    part(tmp_path, "receive-1", "pass")
    for file in folder_of(tmp_path).glob("*.db"):
        assert file.stat().st_blocks * 512 >= file.stat().st_size == 1 << 20


def test_how_things_stand(tmp_path: Path, pool: ConnectionPool) -> None:
    study, image = "2.25.4711", Instance("2.25.9", "1.2", "2.25.1", "2.25.4711", "1.2", "x", "0" * 64, 1)
    with pool.connection() as connection:
        storage.instances.add(connection, image)
        made = [
            storage.jobs.request(connection, study, pipeline, "f", "rule", {}, ["pacs"], "gpu")
            for pipeline in ("ct_lesion", "mre_qc")
        ]
        assert made[0] is not None
        storage.jobs.claim(connection, made[0].id, "owner", 15.0)
        result = storage.results.add(
            connection, job_id=made[0].id, study_instance_uid=study, sop_instance_uid="2.25.5", sop_class_uid="1.2",
            transfer_syntax_uid="1.2", path="y", sha256="1" * 64, size_bytes=1,
        )  # fmt: skip
        storage.deliveries.create(
            connection, [storage.deliveries.Order(result.id, name) for name in ("pacs", "archive")]
        )
    settings = Settings(data_dir=tmp_path, disk_reserve_mb=7)
    settings.incoming_dir.mkdir()
    for age_s, name in ((100, "0123456789abcdef-000001.dcm"), (5, "0123456789abcdef.closed.json")):
        (settings.incoming_dir / f"{time.time_ns() - age_s * 10**9:019d}-{name}").touch()
    (settings.incoming_dir / ".receive_1-half-written").touch()
    with console(pool, settings) as url, urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = read(answer.read().decode())
    assert found["dicom_node_index_lag_entries",] == 2
    assert 100 <= found["dicom_node_index_lag_seconds",] < 120
    assert found["dicom_node_jobs", "ct_lesion", "running"] == 1
    assert found["dicom_node_jobs", "mre_qc", "waiting"] == 1
    assert found["dicom_node_deliveries", "pacs", "waiting"] == 1
    assert found["dicom_node_deliveries", "archive", "waiting"] == 1
    assert 0 <= found["dicom_node_job_heartbeat_age_seconds",] < 10
    assert found["dicom_node_database_up",] == 1
    assert 0 < found["dicom_node_disk_free_bytes",] <= found["dicom_node_disk_size_bytes",]
    assert found["dicom_node_disk_reserve_bytes",] == 7 << 20
    with pool.connection() as connection:
        connection.execute("UPDATE job SET lease_until = now() - interval '10 s' WHERE state = 'running'")
    assert 24 < scraped(tmp_path, pool)["dicom_node_job_heartbeat_age_seconds",] < 40
    assert index_lag(tmp_path / "nowhere") == (0, 0.0)


def test_a_heartbeat_ages_when_the_part_is_dead(tmp_path: Path, no_database: ConnectionPool) -> None:
    part(tmp_path, "work-gpu-1", "metrics.count_now()")
    found = scraped(tmp_path, no_database)
    host = re.sub(r"[^0-9A-Za-z.-]", "-", socket.gethostname())
    assert found["dicom_node_heartbeat_age_seconds", host, "work-gpu-1"] < 30
    assert found["dicom_node_database_up",] == 0
    (alive,) = folder_of(tmp_path).glob("work-gpu-1.*.alive")
    os.utime(alive, (time.time() - 500, time.time() - 500))
    assert scraped(tmp_path, no_database)["dicom_node_heartbeat_age_seconds", host, "work-gpu-1"] >= 500


def test_a_real_receiver_counts(tmp_path: Path, no_database: ConnectionPool, eventually: Callable[..., None]) -> None:
    (tmp_path / "senders.json").write_text(json.dumps([{"ae_title": "CT1", "host": "127.0.0.1"}]))
    uid = new_uid()
    with ReceiverProcess(tmp_path) as receiver:
        with RawScu(receiver.port) as scu:
            scu.associate(calling="CT1")
            assert scu.store(1, uid, dataset_bytes(uid)).status == 0
            assert scu.store(2, new_uid(), bytes(5000)).status == 0xC000
            assert scu.store(3, "2.25.1234", dataset_bytes(uid)).status == 0xA900
            eventually(
                lambda: scraped(tmp_path, no_database)["dicom_node_associations_open",] == 1, "an open association"
            )
            scu.release()
        with RawScu(receiver.port) as scu, pytest.raises(EndedError, match="rejected"):
            scu.associate(calling="UNKNOWN")

        def counted() -> bool:
            found = scraped(tmp_path, no_database)
            return found.get(("dicom_node_associations_rejected_total", "sender not known")) == 1

        eventually(counted, "the rejection")
    found = scraped(tmp_path, no_database)
    assert found["dicom_node_objects_stored_total", "CT1"] == 1
    assert found["dicom_node_object_bytes_total", "CT1"] == len(dataset_bytes(uid))
    assert found["dicom_node_objects_refused_total", "CT1", "C000"] == 1
    assert found["dicom_node_objects_refused_total", "CT1", "A900"] == 1
    assert found["dicom_node_associations_accepted_total", "CT1"] == 1
