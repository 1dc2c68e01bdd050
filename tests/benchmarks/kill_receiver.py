"""kill -9 of an acceptor at random moments under eight associations: `python tests/benchmarks/kill_receiver.py`.

Exit 0: nothing acknowledged was lost, nothing half-written was visible. With `--receivers 2` two processes share the
port and one of them is killed each time.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from killing import Verdict, kill_and_check
from receiver_process import ReceiverProcess, free_port


def main() -> int:
    """Kill, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--receivers", type=int, default=1)
    parser.add_argument("--durable-ack", choices=("fsync", "page-cache"), default="fsync")
    parser.add_argument(
        "--longest", type=float, default=0.6, help="the kill comes 0 to so many seconds after the start"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    verdict, chance, started = Verdict(), random.Random(arguments.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        environment = {
            "DICOM_NODE_DURABLE_ACK": arguments.durable_ack,
            "DICOM_NODE_RECEIVERS": str(arguments.receivers),
        }
        port = free_port()
        receivers = [
            ReceiverProcess(Path(name), environment, port, number) for number in range(1, arguments.receivers + 1)
        ]
        try:
            for receiver in receivers:
                receiver.start()
            for number in range(1, arguments.kills + 1):
                kill_and_check(receivers, verdict, chance, arguments.longest, arguments.associations)
                if number % 20 == 0 or verdict.problems:
                    print(f"{number} kills, {verdict.acknowledged} acknowledged", file=sys.stderr, flush=True)
                if verdict.problems:
                    break
        finally:
            for receiver in receivers:
                if receiver.process is not None and receiver.process.poll() is None:
                    receiver.kill()
    print(
        f"{verdict.kills} kills of {arguments.receivers} receiver(s), {arguments.durable_ack}, seed {arguments.seed}, "
        f"{time.monotonic() - started:.0f} s: {verdict.acknowledged} objects acknowledged, "
        f"{verdict.stored_without_an_answer} stored whose answer was cut off, "
        f"{verdict.kills_in_mid_object} kills in the middle of an object, refused: {dict(verdict.refused) or 'none'}"
    )
    for problem in verdict.problems:
        print(f"WRONG: {problem}")
    return int(bool(verdict.problems or verdict.refused) or not verdict.acknowledged)


if __name__ == "__main__":
    sys.exit(main())
