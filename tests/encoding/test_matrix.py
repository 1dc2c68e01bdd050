"""Every kind of study with every kind of answer: the gate passes, and strangers' validators find nothing."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest
from programs import need
from studies.matrix import Case, Study, cases

from dicom_node.encoding.concepts import PRIVATE_SCHEME, PRIVATE_SCHEME_UID

CASES = cases()
#: What Debian's dicom3tools (2022) says of objects that are right. It lists the standard's coding schemes only, but
#: designators that begin with 99 are anybody's (PS3.16 section 8.2); other lines are gaps of its tables.
OUR_SCHEME = (rf"= <{PRIVATE_SCHEME}>$", rf"= <{re.escape(PRIVATE_SCHEME_UID)}>$")
KNOWN_FALSE = {
    "sr": OUR_SCHEME,
    "sr_comprehensive": OUR_SCHEME,
    "sr_enhanced": OUR_SCHEME,
    "seg_labelmap": (r"Information Object Not found$", r"SegmentNumber not monotonically increasing .* of 0$"),
    "pm": (r"= <QUANTITY>$", *OUR_SCHEME),
}


def test_the_matrix_holds_every_pair() -> None:
    assert len(CASES) >= 60
    values = [(case.source, case.answer, case.character_set, case.orientation, case.findings) for case in CASES]
    met = {(a, b, one[a], one[b]) for one in values for a, b in combinations(range(5), 2)}
    assert {(source, count) for _, _, source, count in (pair for pair in met if pair[:2] == (0, 4))} == {
        (source, count)
        for source in ("ct", "ct_enhanced", "mr", "mr_enhanced", "us", "us_cine")
        for count in (0, 1, 50)
    }
    assert sum(pair[:2] == (2, 3) for pair in met) == 5 * 6  # character set by orientation
    assert sum(pair[:2] == (0, 1) for pair in met) == 4 * 4 + 2 * 2  # source by answer that can be
    assert sum(pair[:2] == (1, 2) for pair in met) == 5 * 5


def _faults(tool: str, kind: str, path: Path) -> list[str]:
    """Lines of dciodvfy that say that something is wrong."""
    output = subprocess.run([tool, "-new", str(path)], capture_output=True).stderr.decode("utf-8", "replace")
    lines = [line for line in output.splitlines() if line.startswith(("Error", "Warning"))]
    known = KNOWN_FALSE.get(kind, ())
    return [f"{path.name}: {line}" for line in lines if not any(re.search(pattern, line) for pattern in known)]


@pytest.mark.parametrize("part", range(4))
def test_every_object_is_valid(part: int, tmp_path: Path) -> None:
    """In parts, so that they can run beside each other."""
    tool = need("dciodvfy")
    written: list[tuple[str, Path]] = []
    for case in CASES[part::4]:
        written += _write(case, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda item: _faults(tool, *item), written)
    assert [line for lines in found for line in lines] == []


def _write(case: Case, folder: Path) -> list[tuple[str, Path]]:
    written = []
    for number, item in enumerate(Study(case).encoded()):
        path = folder / f"{case}-{number}-{item.kind}.dcm"
        path.write_bytes(item.data)
        written.append((item.kind, path))
    kinds = {kind for kind, _ in written}
    assert {"sr", "sr_comprehensive", "sr_enhanced", "sr_text", "sc", "pdf"} <= kinds, case
    assert ("seg" in kinds) == (case.answer in ("ct_lesion", "mre", "mpmri")), case
    assert ("pm" in kinds) == (case.answer == "mre"), case
    return written
