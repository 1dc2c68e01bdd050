"""The whole matrix of studies as files, judged by the slow strangers: PixelMed's validator, and a viewer.

usage: python tests/benchmarks/matrix.py FOLDER [--pixelmed] [--viewer RUN_ALL]

FOLDER/small gets every study of the matrix (images and results); --pixelmed has PixelMed's DicomSRValidator (Debian's
pixelmed-apps, and a JDK) judge every report. FOLDER/large gets a dozen of them with images of 256 x 256; --viewer runs
a script on each, as `RUN_ALL STUDY OUT`, that is expected to fail where a viewer does not show what is there.
"""

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
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
#: Without these its stylesheets are refused by newer Java.
JAVA = [f"-Djdk.xml.{limit}=0" for limit in ("xpathTotalOpLimit", "xpathExprGrpLimit", "xpathExprOpLimit")]
PIXELMED_JAR = "/usr/share/java/pixelmed.jar"
#: One machine for all files: compiling its stylesheets takes ten times as long as judging a report.
JUDGE = """
public class Judge {
    public static void main(String[] paths) throws Exception {
        var validator = new com.pixelmed.validate.DicomSRValidator();
        for (var path : paths) {
            System.out.println("FILE " + path);
            System.out.println(validator.validate(path));
        }
    }
}
"""
#: The check without a browser gives a viewer's library single-frame images only.
MULTI_FRAME, NOT_TRIED = ("ct_enhanced", "mr_enhanced"), re.compile("FAIL adapters SEG")
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


def pixelmed(paths: Sequence[Path], folder: Path) -> dict[Path, list[str]]:
    """Errors of DicomSRValidator that are none of its noise, for each report that has some."""
    judge = folder / "Judge.java"
    judge.write_text(JUDGE)
    done = subprocess.run(
        ["java", *JAVA, "-cp", PIXELMED_JAR, str(judge), *map(str, paths)], stdout=subprocess.PIPE, check=True
    )
    found: dict[Path, list[str]] = {}
    for part in done.stdout.decode("utf-8", "replace").split("FILE ")[1:]:
        name, *lines = part.splitlines()
        errors = [line for line in lines if line.startswith("Error") and not PIXELMED_NOISE.search(line)]
        if "IOD validation complete" not in lines or not any("Found Root Template" in line for line in lines):
            errors.append("no root template found")
        if errors:
            found[Path(name)] = errors
    return found


#: What a viewer is asked to show: each kind of source, each answer; oblique MR, clips, enhanced CT and MR among them.
#: None in Japanese: dcmjs 0.52 reads no object with two character sets, the scanner's images no more than our results.
DOZEN = [
    Case(101, "mr", "ct_lesion", "latin1", "oblique", 1),
    Case(102, "mr", "mre", "utf8", "oblique", 1),
    Case(103, "mr_enhanced", "ct_lesion", "gb18030", "reversed", 1),
    Case(104, "ct_enhanced", "ct_lesion", "latin1", "coronal", 50),
    Case(105, "ct_enhanced", "mre", "utf8", "oblique", 1),
    Case(106, "ct", "ct_lesion", "utf8", "reversed", 1),
    Case(107, "ct", "mpmri", "none", "sagittal", 50),
    Case(108, "us_cine", "us_rf", "gb18030", "none", 50),
    Case(109, "us_cine", "fusion", "latin1", "none", 1),
    Case(110, "us", "us_rf", "none", "none", 1),
    Case(111, "mr", "fusion", "none", "reversed", 50),
    Case(112, "ct", "ct_lesion", "latin1", "oblique", 0),
]


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
        reports += [path for path in results if "_sr" in path.name]
    print(f"{len(cases())} studies written in {time.monotonic() - start:.0f} s, {len(reports)} reports")
    if arguments.pixelmed:
        wrong = pixelmed(reports, arguments.folder)
        for path, errors in wrong.items():
            for line in errors:
                print(f"{path.parent.name}/{path.name}: {line[:400]}")
        failed["pixelmed"] = len(wrong)
        print(f"PixelMed: {len(wrong)} of {len(reports)} reports with errors, {time.monotonic() - start:.0f} s")
    if arguments.viewer:
        for case in DOZEN:
            folder, out = arguments.folder / "large" / str(case), arguments.folder / "out" / str(case)
            write(Study(case, size=256, slices=24), folder, VIEWED)
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log").open("w") as log:
                status = subprocess.run(
                    [str(arguments.viewer.resolve()), str(folder), str(out), "--no-pixelmed"], stdout=log, stderr=log
                ).returncode
            lines = [line for line in (out / "log").read_text().splitlines() if line.startswith("FAIL ")]
            wrong_lines = [line for line in lines if not (case.source in MULTI_FRAME and NOT_TRIED.match(line))]
            failed["viewer"] += bool(wrong_lines) or (status != 0 and not lines)
            print(f"{'FAIL' if wrong_lines else 'ok  '} {case}", *(line[:200] for line in wrong_lines), sep="\n     ")
    print(dict(+failed) or "nothing found")
    sys.exit(1 if sum(failed.values()) else 0)


if __name__ == "__main__":
    main()
