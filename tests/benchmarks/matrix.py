"""The whole matrix of studies as files, judged by the slow strangers: PixelMed's validator, and a viewer.

usage: python tests/benchmarks/matrix.py FOLDER [--pixelmed] [--viewer RUN_ALL]

FOLDER/small gets every study of the matrix (images and results); --pixelmed runs DicomSRValidator (Debian's
pixelmed-apps; half a minute each) on every report, of the forms with the same content on one only. FOLDER/large gets a dozen of them with images of 256 x 256; --viewer runs a
script on each, as `RUN_ALL STUDY OUT`, that is expected to fail where a viewer does not show what is there.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "encoding")]

from studies.matrix import Case, Study, cases  # noqa: E402

from dicom_node.encoding.package import Package  # noqa: E402

#: What DicomSRValidator says of reports that are right: it tries each group on every template of groups.
PIXELMED_NOISE = re.compile(
    r"Template (1410|1411|1501) .*[Cc]onditional content item|different code meaning"
    r"|Purpose of Reference \(Concept\) is forbidden"
)
#: Without this its stylesheet is refused by newer Java.
JAVA = "-Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 -Djdk.xml.xpathExprOpLimit=0"
#: What most destinations get; one SR and one SEG, as a viewer opens the newest of each Series.
VIEWED = Package(kinds=("seg", "pm", "kos", "sc", "pdf", "sr"), fall_backs=False)


def write(study: Study, folder: Path, package: Package | None = None) -> list[Path]:
    """Images and results of a study as files; paths of the results."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, images in study.images.items():
        for index, image in enumerate(images):
            image.save_as(folder / f"{role}{index:03}.dcm", enforce_file_format=True)
    results = []
    for number, item in enumerate(study.encoded(package) if package else study.encoded()):
        results.append(folder / f"result{number}_{item.kind}.dcm")
        results[-1].write_bytes(item.data)
    return results


def pixelmed(path: Path) -> list[str]:
    """Errors of DicomSRValidator that are none of its noise."""
    done = subprocess.run(
        ["DicomSRValidator", str(path)], capture_output=True, env={**os.environ, "JAVA_TOOL_OPTIONS": JAVA}, timeout=900
    )
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    if not any("Found Root Template" in line for line in lines) and "sr_text" not in path.name:
        return ["no root template found"]
    return [line for line in lines if line.startswith("Error") and not PIXELMED_NOISE.search(line)]


def dozen(chosen: list[Case]) -> list[Case]:
    """Twelve cases: each kind of source, each answer; oblique MR, clips of ultrasound and enhanced CT among them."""
    found: list[Case] = []
    wanted = [
        ("mr", "ct_lesion", "oblique"), ("mr", "mre", "oblique"), ("mr_enhanced", "ct_lesion", None),
        ("ct_enhanced", "ct_lesion", None), ("ct_enhanced", "mre", None), ("ct", "ct_lesion", "reversed"),
        ("ct", "mpmri", None), ("us_cine", "us_rf", None), ("us_cine", "fusion", None), ("us", "us_rf", None),
        ("mr", "fusion", None), ("ct", "ct_lesion", "oblique"),
    ]  # fmt: skip
    for source, answer, orientation in wanted:
        fitting = [
            case
            for case in chosen
            if (case.source, case.answer) == (source, answer)
            and orientation in (None, case.orientation)
            and case not in found
        ]
        fitting = fitting or [case for case in chosen if case.source == source and case not in found]
        found.append(max(fitting, key=lambda case: (case.findings == 1, case.findings)))
    return found


def main() -> None:
    """Write, judge, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pixelmed", action="store_true")
    parser.add_argument("--viewer", type=Path, help="run_all.sh of the viewer check")
    arguments = parser.parse_args()
    failed = Counter[str]()
    start = time.monotonic()
    reports: list[Path] = []
    for case in cases():
        results = write(Study(case), arguments.folder / "small" / str(case))
        forms = ("_sr.", "_sr_text.") if len(reports) > 8 else ("_sr",)
        reports += [path for path in results if any(form in path.name for form in forms)]
    print(f"{len(cases())} studies written in {time.monotonic() - start:.0f} s, {len(reports)} reports")
    if arguments.pixelmed:
        with ThreadPoolExecutor(2) as pool:
            for path, errors in zip(reports, pool.map(pixelmed, reports), strict=True):
                for line in errors:
                    failed[f"pixelmed {path.name}"] += 1
                    print(f"{path.parent.name}/{path.name}: {line[:300]}", flush=True)
        print(f"PixelMed: {len(reports)} reports, {sum(failed.values())} errors, {time.monotonic() - start:.0f} s")
    if arguments.viewer:
        for case in dozen(cases()):
            folder, out = arguments.folder / "large" / str(case), arguments.folder / "out" / str(case)
            write(Study(case, size=256, slices=24), folder, VIEWED)
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log").open("w") as log:
                status = subprocess.run(
                    [str(arguments.viewer.resolve()), str(folder), str(out), "--no-pixelmed"], stdout=log, stderr=log
                ).returncode
            failed["viewer"] += status != 0
            print(f"{'ok  ' if status == 0 else 'FAIL'} {case}", flush=True)
    print(dict(failed) or "nothing found")
    sys.exit(1 if sum(failed.values()) else 0)


if __name__ == "__main__":
    main()
