"""How long the images of one answer take: made and written.

python tests/benchmarks/result_images.py [--slices 200] [--size 512] [--rounds 5]
Prints medians of CPU seconds (the machine may be busy with other things) and megabytes, for 5 and 50 findings.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "encoding"))

from encoded_studies import ball, ct_stack, lesion, provenance, through_bytes
from pydicom import Dataset
from pydicom.uid import RLELossless

from dicom_node.encoding.capture import capture
from dicom_node.encoding.document import document
from dicom_node.encoding.header import to_bytes
from dicom_node.encoding.label_map import NoLabelMap, label_map_segmentation
from dicom_node.encoding.page import summary_page
from dicom_node.encoding.parametric_map import parametric_map
from dicom_node.encoding.segmentation import segmentation, segments_of
from dicom_node.encoding.sources import SourceStack, source_stack
from pipelines.findings import Findings, Map, Region

SPACING = (1.5, 0.75, 0.75)

Maker = Callable[[], Dataset | NoLabelMap | None]


def answer(count: int, shape: tuple[int, int, int]) -> Findings:
    """Lesions that do not touch, all over a liver, and a map of it."""
    liver = ball(shape, [size / 2 for size in shape], 100, SPACING)
    rng = np.random.default_rng(count)
    places = np.argwhere(liver)[rng.permutation(np.count_nonzero(liver))]
    taken, found = np.zeros(shape, dtype=bool), []
    for place in places:
        mask = ball(shape, place, 7, SPACING) & liver
        if not (mask & taken).any():
            taken |= mask
            found.append(lesion(f"Lesion {len(found) + 1}", mask, float(np.prod(SPACING)), 60.0, "MET"))
        if len(found) == count:
            break
    values = np.where(liver, np.float32(3), np.float32(np.nan))
    return Findings(
        "portal_venous",
        tuple(found),
        (Region("Liver", "liver", liver),),
        maps=(Map("Stiffness", "elasticity", "kPa", values),),
        headline=f"{count} lesions",
    )


def makers(findings: Findings, stack: SourceStack) -> Iterator[tuple[str, Maker]]:
    """Name of each object and how it is made."""
    made_by = provenance()
    segments = segments_of(findings, stack.shape, made_by)
    pixels = np.random.default_rng(0).normal(60, 12, stack.shape).astype(np.int16)
    page = summary_page(findings, segments, stack, pixels, made_by)
    yield "SEG", lambda: segmentation(segments, stack, made_by)
    yield "SEG with segments_of", lambda: segmentation(segments_of(findings, stack.shape, made_by), stack, made_by)
    yield "SEG, all frames", lambda: segmentation(segments, stack, made_by, omit_empty_frames=False)
    yield "Label map", lambda: label_map_segmentation(segments, stack, made_by)
    yield "Label map, RLE", lambda: label_map_segmentation(segments, stack, made_by, transfer_syntax_uid=RLELossless)
    yield "Parametric Map", lambda: parametric_map(findings.maps[0], stack, made_by)
    yield (
        "SC, page made anew",
        lambda: capture(summary_page(findings, segments, stack, pixels, made_by), stack.header, made_by),
    )
    yield "PDF, page there", lambda: document(page, stack.header, made_by)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    shape = (arguments.slices, arguments.size, arguments.size)
    stack = source_stack([through_bytes(one) for one in ct_stack(slices=shape[0], size=shape[1], spacing=SPACING)])
    print("| findings | what | make s | write s | MB |\n|---:|---|---:|---:|---:|")
    for count in (5, 50):
        for name, make in makers(answer(count, shape), stack):
            made, written, size = [], [], 0
            for _ in range(arguments.rounds):
                since = time.process_time()
                dataset = make()
                between = time.process_time()
                size = len(to_bytes(dataset)) if isinstance(dataset, Dataset) else 0
                made.append(between - since)
                written.append(time.process_time() - between)
            times = f"{statistics.median(made):.3f} | {statistics.median(written):.3f}"
            print(f"| {count} | {name} | {times} | {size / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
