"""The answer in one line: whether the scan must be repeated comes first."""

from collections.abc import Sequence

from pipelines.mre_qc.reasons import ADVICE, REASONS
from pipelines.mre_qc.stiffness import ExamStiffness
from pipelines.mre_qc.thresholds import Thresholds
from pipelines.mre_qc.verdict import ExamVerdict, SliceVerdict


def in_one_word(exam: ExamVerdict, *, more_to_come: bool = False) -> str:
    """What a list of series shows, and how the headline begins."""
    return "DIAGNOSTIC" if exam.is_diagnostic else "NOT YET" if more_to_come else "REPEAT"


def in_one_line(
    exam: ExamVerdict,
    slices: Sequence[SliceVerdict],
    stiffness: ExamStiffness | None,
    hz: float,
    limits: Thresholds,
    *,
    more_to_come: bool = False,
) -> str:
    """ "REPEAT: 1 of 4 slices diagnostic; motion; repeat the breath-hold" or "DIAGNOSTIC: 4 of 4 slices; 2.93 kPa".

    more_to_come : slices that may still make it diagnostic are on their way, so nothing is to be repeated yet:
    "NOT YET: 1 of 2 slices so far diagnostic; motion".
    """
    count = f"{exam.diagnostic_slices} of {len(slices)} slices{' so far' if more_to_come else ''}"
    if not exam.is_diagnostic and more_to_come:
        why = ", ".join(dict.fromkeys(REASONS[one.reasons[0]] for one in slices if one.reasons))
        return f"{in_one_word(exam, more_to_come=True)}: {count} diagnostic" + (f"; {why}" if why else "")
    if not exam.is_diagnostic:
        why = ", ".join(REASONS[reason] for reason in exam.reasons[:2])
        return f"{in_one_word(exam)}: {count} diagnostic; {why}; {ADVICE[exam.reasons[0]]}"
    if stiffness is None:
        return f"{in_one_word(exam)}: {count}; stiffness not stated"
    row = limits.bin_of(stiffness.mean_kpa, hz)
    meaning = f" ({row.meaning})" if row is not None else ""
    return f"{in_one_word(exam)}: {count}; shear stiffness {stiffness.mean_kpa:.2f} kPa at {hz:g} Hz{meaning}"
