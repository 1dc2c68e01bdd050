"""Bad days of eight PACSs at once, with real workers, and what is there afterwards.

    python tests/benchmarks/delivery.py [--studies 50] [--trouble-s 20] [--json verdict.json]

PostgreSQL and Valkey, the scheduler and two workers as processes; the PACSs are stand-ins in this one. Each study's SEG
and SR go to every PACS. One is well all the time; the others are down, hang, are slow, out of resources, abort in
mid-batch, reject associations, or refuse SR or SEG at negotiation. One worker is killed (kill -9) on the way. Then all
recover (those that refuse a SOP Class stay so). The verdict: each object is at each PACS, byte for byte as in the
outbox, in the order of its study; and how long results for the one that is well were under way, alone and beside the
others.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from deliveries_lab import CLASSES, Lab, dataset_of, first_arrivals  # noqa: E402

from dicom_node.dimse.admission import Reject  # noqa: E402
from dicom_node.dimse.standin import Faults, StandInPacs  # noqa: E402
from dicom_node.embedded.broker import EmbeddedBroker  # noqa: E402
from dicom_node.embedded.postgres import EmbeddedPostgres  # noqa: E402
from dicom_node.encoding.results import EncodedObject  # noqa: E402
from storage.database import migrate  # noqa: E402

TROUBLES = {
    "slow": Faults(seconds=0.5),
    "out_of_resources": Faults(statuses=dict.fromkeys(CLASSES.values(), 0xA700)),
    "aborting": Faults(aborts_after=1, keeps_aborted=True),
    "rejecting": Faults(rejects=Reject.LOCAL_LIMIT),
    "no_sr": Faults(refuses=frozenset({CLASSES["sr"]})),
    "no_seg": Faults(refuses=frozenset({CLASSES["seg"]})),
}
STAY = ("no_sr", "no_seg")
EXPECTED = {"no_sr": ("seg", "sr_comprehensive"), "no_seg": ("sc", "sr")}
SIZE_BYTES = 300_000


@contextmanager
def processes(folder: Path, database_url: str, broker_url: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The scheduler and two workers for deliveries."""
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "DICOM_NODE_DATA_DIR": str(folder),
        "DICOM_NODE_DELIVERY_BACKOFF_MAX_S": "5",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    parts = {"schedule": ["schedule"], "work-cpu-1": ["work", "cpu", "1"], "work-cpu-2": ["work", "cpu", "2"]}
    (folder / "incoming").mkdir(parents=True)
    with ExitStack() as stack:
        started = {}
        for name, arguments in parts.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [sys.executable, "-m", "dicom_node", *arguments]
            started[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
            stack.callback(started[name].wait)
            stack.callback(started[name].kill)
        wait_until(lambda: all((folder / "run" / f"{name}.ready").exists() for name in parts), 60, "the parts")
        yield started


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Seconds that it took; RuntimeError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


def latencies(lab: Lab, name: str, prefix: str) -> list[float]:
    """Seconds from order to arrival of what has arrived there."""
    query = """SELECT extract(epoch FROM delivered_at - delivery.created_at)::float8
                 FROM delivery JOIN result ON result.id = result_id
                WHERE destination = %s AND delivery.state = 'done' AND starts_with(study_instance_uid, %s)"""
    with lab.node.pool.connection() as connection:
        return sorted(row[0] for row in connection.execute(query, (name, prefix)).fetchall())


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and longest."""
    return {"n": len(values), "median_s": round(statistics.median(values), 3), "longest_s": round(max(values), 3)}


def verdict_on(
    stand_in: StandInPacs, made: dict[str, EncodedObject], studies: list[str], kinds: tuple[str, ...]
) -> dict[str, object]:
    """What is at one PACS, against what was in the outbox."""
    arrived = first_arrivals(stand_in.kept)  # AssertionError where one UID came with two contents
    wanted = {uid for uid, item in made.items() if item.kind in kinds}
    order = {study: [] for study in studies}  # type: dict[str, list[str]]
    for uid, item in arrived.items():
        order[item.study_instance_uid].append(made[uid].kind)
    return {
        "expected": len(wanted),
        "distinct": len(arrived),
        "missing": len(wanted - arrived.keys()),
        "unexpected": len(arrived.keys() - wanted),
        "not_byte_identical": sum(
            dataset_of(item.file_bytes) != dataset_of(made[uid].data) for uid, item in arrived.items()
        ),
        "out_of_order": sum(found != list(kinds) for found in order.values()),
        "came_again": sum(Counter(item.sop_instance_uid for item in stand_in.kept).values()) - len(arrived),
    }


def run(studies_count: int, trouble_s: float, folder: Path) -> dict[str, object]:
    """The bad day."""
    database, broker = EmbeddedPostgres(folder / "postgres"), EmbeddedBroker(folder / "broker")
    with ExitStack() as stack:
        database.start()
        stack.callback(database.stop)
        broker.start()
        stack.callback(broker.stop)
        migrate(database.url)
        lab = Lab(database.url, folder / "data")
        stack.callback(lab.close)
        parts = stack.enter_context(processes(folder / "data", database.url, broker.url))
        pacs = {"well": StandInPacs(), "down": StandInPacs(), "hanging": StandInPacs()}
        pacs |= {name: StandInPacs(faults=faults) for name, faults in TROUBLES.items()}
        down, hanging = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        ports = {"down": down.getsockname()[1], "hanging": hanging.getsockname()[1]}
        ports |= {n: stack.enter_context(one.running()) for n, one in pacs.items() if n not in ports}
        down.close()
        lab.rules(**{n: f"type: dimse, host: 127.0.0.1, ae_title: PACS, port: {port}" for n, port in ports.items()})

        def order_all(prefix: str, send_to: list[str]) -> tuple[list[str], dict[str, EncodedObject]]:
            studies = [f"{prefix}{number}" for number in range(1, studies_count + 1)]
            made = {}
            for study in studies:
                for item in lab.finish_job(study, send_to, size_bytes=SIZE_BYTES):
                    made[item.sop_instance_uid] = item
                time.sleep(trouble_s / 2 / studies_count)
            return studies, made

        order_all("2.25.1000", ["well"])
        wait_until(lambda: len(pacs["well"].kept) == 2 * studies_count, 60, "the one that is well, alone")
        alone = latencies(lab, "well", "2.25.1000")
        pacs["well"] = replaced = StandInPacs()
        replaced_port = stack.enter_context(replaced.running())
        ports["well"] = replaced_port
        lab.rules(**{n: f"type: dimse, host: 127.0.0.1, ae_title: PACS, port: {port}" for n, port in ports.items()})

        studies, made = order_all("2.25.2000", list(ports))
        wait_until(lambda: len(first_arrivals(replaced.kept)) == 2 * studies_count, 60, "the one that is well")
        time.sleep(trouble_s / 2)
        beside = latencies(lab, "well", "2.25.2000")
        with lab.node.pool.connection() as connection:
            query = "SELECT destination, count(*) FROM delivery WHERE state IN ('waiting', 'sending') GROUP BY 1"
            waiting = dict(connection.execute(query).fetchall())
        parts["work-cpu-2"].send_signal(signal.SIGKILL)  # what it was sending is sent again by the other
        hanging.close()
        for name, stand_in in pacs.items():
            if name not in STAY:
                stand_in.faults = Faults()
        for name in ("down", "hanging"):
            stack.enter_context(pacs[name].running(port=ports[name]))

        def is_over() -> bool:
            with lab.node.pool.connection() as connection:
                query = "SELECT count(*) FROM delivery WHERE state IN ('waiting', 'sending')"
                return connection.execute(query).fetchone() == (0,)

        recovery_s = wait_until(is_over, 180, "recovery")
        with lab.node.pool.connection() as connection:
            states = dict(connection.execute("SELECT state, count(*) FROM delivery GROUP BY 1").fetchall())
        found = {n: verdict_on(one, made, studies, EXPECTED.get(n, ("seg", "sr"))) for n, one in pacs.items()}
    faults = ("missing", "unexpected", "not_byte_identical", "out_of_order")
    sound = all(not one[key] for one in found.values() for key in faults) and "parked" not in states
    return {
        "sound": sound and max(beside) < max(alone) + 2.0,
        "studies": studies_count,
        "pacs": found,
        "waiting_before_recovery": waiting,
        "recovery_s": round(recovery_s, 1),
        "deliveries": states,
        "well_alone": summary(alone),
        "well_beside_the_others": summary(beside),
    }


def main() -> None:
    """Print the verdict; exit 1 if it is not sound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--trouble-s", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="node-delivery-") as folder:
        os.chmod(folder, 0o755)  # the database's account must reach its directory
        verdict = run(arguments.studies, arguments.trouble_s, Path(folder))
    text = json.dumps(verdict, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    sys.exit(0 if verdict["sound"] else 1)


if __name__ == "__main__":
    main()
