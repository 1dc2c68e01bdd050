"""How long the objects of one answer take: made and written, and the whole of it with all checks.

python tests/benchmarks/encoding.py [--slices 200] [--size 512] [--rounds 3]
Prints medians of CPU seconds (the machine may be busy with other things) and kilobytes, for 0, 5 and 50 findings.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "encoding"))

from encoded_studies import ball, ct_stack, lesion, provenance, through_bytes

from dicom_node.encoding.header import to_bytes
from dicom_node.encoding.key_objects import key_objects
from dicom_node.encoding.package import USUAL
from dicom_node.encoding.report import FORMS, reports
from dicom_node.encoding.reported import Reported
from dicom_node.encoding.results import encode_results
from dicom_node.encoding.segmentation import segmentation, segments_of
from dicom_node.encoding.sources import source_stack
from dicom_node.encoding.text_report import text_report
from pipelines.findings import Findings, Region

SPACING = (1.5, 0.75, 0.75)


def answer(findings: int, shape: tuple[int, int, int]) -> Findings:
    """Lesions of 12 mm all over a liver."""
    liver = np.zeros(shape, dtype=bool)
    liver[shape[0] // 8 : -shape[0] // 8, shape[1] // 4 : -shape[1] // 4, shape[2] // 4 : -shape[2] // 4] = True
    places = np.random.default_rng(1).uniform(0.3, 0.7, (findings, 3)) * shape
    voxel_mm3 = float(np.prod(SPACING))
    found = (
        lesion(f"Lesion {number}", ball(shape, place, 6.0, SPACING), voxel_mm3, 60.0, "MET")
        for number, place in enumerate(places, start=1)
    )
    return Findings("portal_venous", tuple(found), (Region("Liver", "liver", liver),), headline=f"{findings} lesions")


def measured(make: Callable[[], int], rounds: int) -> tuple[float, int]:
    """Median CPU seconds of `make`, and the bytes that it gave."""
    seconds, size = [], 0
    for _ in range(rounds):
        since = time.process_time()
        size = make()
        seconds.append(time.process_time() - since)
    return statistics.median(seconds), size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    shape = (arguments.slices, arguments.size, arguments.size)
    headers = [through_bytes(one) for one in ct_stack(slices=shape[0], size=shape[1], spacing=SPACING)]
    sources, made_by, stack = {"portal_venous": headers}, provenance(), source_stack(headers)
    print("| findings | what | CPU s | KB |\n|---:|---|---:|---:|")
    for count in (0, 5, 50):
        findings = answer(count, shape)
        segments = segments_of(findings, stack.shape, made_by)
        seg = segmentation(segments, stack, made_by)
        reported = Reported(findings, segments, stack, sources, made_by)

        def written(kinds: tuple[str, ...], reported: Reported, results: list) -> int:
            return sum(len(to_bytes(one)) for one in reports(reported, results, kinds).values())

        def said(reported: Reported, results: list) -> int:
            return len(to_bytes(text_report(reported, results)))

        def selected(reported: Reported) -> int:
            chosen = key_objects(reported)
            return 0 if chosen is None else len(to_bytes(chosen))

        def whole(findings: Findings) -> int:
            return sum(len(item.data) for item in encode_results(findings, sources, made_by, package=USUAL))

        referred = [("seg", seg)]
        parts = {
            "SEG": lambda segments=segments: len(to_bytes(segmentation(segments, stack, made_by))),
            "SR": partial(written, ("sr",), reported, referred),
            "SR in three forms": partial(written, tuple(FORMS), reported, referred),
            "Basic Text SR": partial(said, reported, referred),
            "KOS": partial(selected, reported),
            "all, with fall-backs and checks": partial(whole, findings),
        }
        for name, make in parts.items():
            seconds, size = measured(make, arguments.rounds)
            print(f"| {count} | {name} | {seconds:.2f} | {size / 1000:.0f} |", flush=True)


if __name__ == "__main__":
    main()
