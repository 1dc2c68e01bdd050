"""How long the main job takes, measured from outside: `python tests/benchmarks/main_job.py [--rounds N]`.

A node with embedded servers, Debian's Orthanc as the PACS and DCMTK's storescu as the sender. Per round one phantom
study (>= 80 slices of 512 x 512 per phase) comes in two associations, portal-venous first, with a pause between them.
Printed: seconds from start to the ready line; from the last association's release to the job's start; from the last
image to SR and SEG at Orthanc. The first round warms up and is shown apart.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from nodes import Pacs, RunningNode, clone, wait_until
from servers import debian_orthanc

from dicom_node.dimse.standin import StandInPacs
from models.phantoms import PHANTOMS


def storescu(port: int, files: list[Path]) -> datetime:
    """Send over one association; the time of its end."""
    command = ["storescu", "-aet", "MODALITY", "-aec", "LIVERNODE", "127.0.0.1", str(port)]
    subprocess.run([*command, *(str(file) for file in files)], check=True)
    return datetime.now(UTC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pause", type=float, default=6.0, help="seconds between the two associations")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        case = PHANTOMS["ct_lesion"](arguments.seed, folder, slices=90)
        with debian_orthanc(folder) as orthanc:
            started = time.monotonic()
            node = RunningNode(folder, Pacs(StandInPacs(), orthanc.port)).start()
            print(f"ready after {time.monotonic() - started:.1f} s")
            rules = node.folder / "rules.yaml"
            node.import_rules()
            rules.write_text(rules.read_text().replace("ae_title: PACS", "ae_title: ORTHANC"))
            node.command("rules", "import", str(rules))
            starts, answers = [], []
            for number in range(arguments.rounds):
                study, series = clone(case, folder / f"round{number}", f"round{number}")
                arterial, portal = series.values()
                storescu(node.port, portal)
                time.sleep(arguments.pause)
                last = storescu(node.port, arterial)
                wait_until(lambda study=study: orthanc.modalities(study) == ["SEG", "SR"], 300, "SR and SEG")
                answer_s = (datetime.now(UTC) - last).total_seconds()
                with node.database() as connection:
                    query = "SELECT count(*), min(started_at), min(finished_at) FROM job WHERE study_instance_uid=%s"
                    row = connection.execute(query, (study,)).fetchone()
                    jobs, job_started, finished = row
                start_s = (job_started - last).total_seconds()
                run_s = (finished - job_started).total_seconds()
                print(
                    f"round {number}: {len(portal)} + {len(arterial)} images, {jobs} job, started {start_s:.2f} s "
                    f"after the release, ran {run_s:.1f} s, SR + SEG at Orthanc {answer_s:.1f} s after the last image"
                )
                if number:
                    starts.append(start_s)
                    answers.append(answer_s)
            node.stop()
    start_s, answer_s = statistics.median(starts), statistics.median(answers)
    print(f"median of {len(starts)}: job start {start_s:.2f} s, answer {answer_s:.1f} s")


if __name__ == "__main__":
    main()
