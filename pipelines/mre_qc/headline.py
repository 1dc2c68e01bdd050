"""The answer in one line: whether the scan must be repeated comes first."""

from collections.abc import Sequence

from pipelines.mre_qc.reasons import ADVICE, REASONS
from pipelines.mre_qc.stiffness import ExamStiffness
from pipelines.mre_qc.thresholds import Thresholds
from pipelines.mre_qc.verdict import ExamVerdict, SliceVerdict


def in_one_word(exam: ExamVerdict) -> str:
    """What a list of series shows: the headline's first word."""
    return "DIAGNOSTIC" if exam.is_diagnostic else "REPEAT"


def in_one_line(
    exam: ExamVerdict,
    slices: Sequence[SliceVerdict],
    stiffness: ExamStiffness | None,
    hz: float,
    limits: Thresholds,
) -> str:
    """ "REPEAT: 1 of 4 slices diagnostic; motion; repeat the breath-hold" or "DIAGNOSTIC: 4 of 4 slices; 2.93 kPa"."""
    count = f"{exam.diagnostic_slices} of {len(slices)} slices"
    if not exam.is_diagnostic:
        why = ", ".join(REASONS[reason] for reason in exam.reasons[:2])
        return f"{in_one_word(exam)}: {count} diagnostic; {why}; {ADVICE[exam.reasons[0]]}"
    if stiffness is None:
        return f"{in_one_word(exam)}: {count}; stiffness not stated"
    row = limits.bin_of(stiffness.mean_kpa, hz)
    meaning = f" ({row.meaning})" if row is not None else ""
    return f"{in_one_word(exam)}: {count}; shear stiffness {stiffness.mean_kpa:.2f} kPa at {hz:g} Hz{meaning}"
