"""Which contrast phase is a CT stack, or why it is none: a verdict with its evidence in words.

Evidence in this order: Contrast/Bolus Agent Phase (0018,9344), time since the bolus started, what the series is
called, how the acquisitions follow each other in time. Pixels check the header and decide where it is silent or
contradicts itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dicom_node.recognition.ct_pixels import Enhancement, earlier_of
from dicom_node.recognition.ct_words import extra_of, is_sharp_kernel, words_of
from dicom_node.recognition.stacks import Stack, acquisition_time_s, days, is_localizer, seconds_of_day

Pixels = Callable[[Stack], Enhancement | None]

UNKNOWN_PHASE = "ct unknown phase"
CT_CLASSES = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"}

#: Seconds after the start of the injection in which only one phase is plausible.
_TIMING = (
    ("plain", -7200.0, -5.0),
    ("arterial", 10.0, 48.0),
    ("portal_venous", 52.0, 110.0),
    ("delayed", 120.0, 1800.0),
)
#: From arterial to portal-venous, seconds: 25 to 45 as a rule, with room for slow tables.
_ARTERIAL_TO_PORTAL_S = (12.0, 75.0)
_LEAST_SLICES_FOR_PIXELS = 5
_AGENT_ABSENT = {"", "none", "no", "non", "nein"}


@dataclass(frozen=True)
class Verdict:
    """What a stack is, and why."""

    kind: str  # "ct arterial", "localizer", ...
    reason: str


@dataclass(frozen=True)
class _Evidence:
    phase: str
    text: str


def kind_of_phase(phase: str) -> str:
    """arterial -> "ct arterial", as roles and the console name it."""
    return f"ct {phase}"


def ct_verdicts(stacks: Sequence[Stack], pixels: Pixels | None = None) -> list[Verdict]:
    """Verdicts on the CT stacks of one study, in their order; siblings matter, so they are judged together.

    pixels : measures a stack on demand; None: headers alone.
    """
    verdicts: list[Verdict | None] = [set_aside(stack) for stack in stacks]
    open_ones = [i for i, verdict in enumerate(verdicts) if verdict is None]
    evidence = {i: _header_evidence(stacks[i], [stacks[j] for j in open_ones if j != i]) for i in open_ones}
    _add_hints(stacks, evidence)
    _add_order_in_time(stacks, evidence)
    measured: dict[int, Enhancement | None] = {}
    for i in open_ones:
        phases = {e.phase for e in evidence[i]}
        worth_it = (
            phases != {"plain"} and phases != {"delayed"} and len(stacks[i].positions_mm) >= _LEAST_SLICES_FOR_PIXELS
        )
        measured[i] = pixels(stacks[i]) if pixels is not None and worth_it else None
        verdicts[i] = _verdict(stacks[i], evidence[i], measured[i])
    _settle_pair_by_pixels(stacks, verdicts, measured)
    return [verdict for verdict in verdicts if verdict is not None]


# ------------------------------------------------------------------ none of the phases


def set_aside(stack: Stack) -> Verdict | None:
    """Verdict on a CT stack that is no soft-tissue volume of the body; None if it may be one."""
    a = stack.attributes
    image_type = [str(v).upper() for v in a.get("ImageType") or ()]
    shown = "\\".join(image_type)
    description = str(a.get("SeriesDescription") or "")
    if stack.sop_class_uid not in CT_CLASSES:
        return Verdict("not ct", f"its SOP Class is {stack.sop_class_uid}")
    if is_localizer(stack.instances[0]):
        return Verdict("localizer", f"ImageType {shown}")
    named = extra_of(description)
    if named is not None and named[0] != "bone kernel":
        return Verdict(named[0], f"SeriesDescription says '{named[1]}'")
    for word in (
        "MPR",
        "REFORMATTED",
        "MIP",
        "MINIP",
        "VRT",
        "RENDERED",
        "CURVED",
        "SSD",
        "PROJECTION IMAGE",
        "MIN_IP",
    ):
        if any(word == value or word in value.replace("_", " ").split() for value in image_type[1:]):
            return Verdict("mpr", f"ImageType {shown}")
    if "SCREEN SAVE" in image_type or "SCREEN_SAVE" in image_type:
        return Verdict("secondary capture", f"ImageType {shown}")
    if not stack.positions_mm:
        return Verdict("ct without geometry", "Image Position or Image Orientation (Patient) is missing or unreadable")
    if stack.orientation != "axial":
        return Verdict("mpr", f"its slices are {stack.orientation}, not axial")
    kernel = str(a.get("ConvolutionKernel") or "")
    if kernel and is_sharp_kernel(kernel):
        return Verdict("bone kernel", f"Convolution Kernel {kernel} is made for bone or lung")
    if named is not None and not kernel:
        return Verdict("bone kernel", f"SeriesDescription says '{named[1]}'")
    phases = a.get("FrameContrastPhases") or ()
    if len(phases) > 1:
        return Verdict("ct several phases", f"one multi-frame object holds the phases {', '.join(phases)}")
    return None


# ------------------------------------------------------------------ evidence


def _header_evidence(stack: Stack, siblings: Sequence[Stack]) -> list[_Evidence]:
    """What the header says of the phase, strongest first."""
    a = stack.attributes
    found: list[_Evidence] = []
    declared = str(a.get("ContrastBolusAgentPhase") or "")
    phase = words_of(declared).phase
    if phase is not None:
        found.append(_Evidence(phase, f"Contrast/Bolus Agent Phase is {declared}"))
    timing = _timing(stack, siblings)
    if timing is not None:
        found.append(timing)
    for keyword in ("SeriesDescription", "ImageComments", "ProtocolName"):
        text = str(a.get(keyword) or "")
        if keyword != "SeriesDescription" and any(text == str(s.attributes.get(keyword) or "") for s in siblings):
            continue  # one text for the whole exam tells no phase from another
        words = words_of(text)
        if words.phase is not None:
            found.append(_Evidence(words.phase, f"{keyword} says '{words.phases[words.phase]}'"))
            break
    return found


def _timing(stack: Stack, siblings: Sequence[Stack]) -> _Evidence | None:
    """Phase from the delay after the bolus."""
    delay = delay_s(stack)
    if delay is None:
        return None
    # Some scanners write the time of the series, or one time for all: then the delay says nothing.
    if abs(delay) < 1.0 or any(
        s.acquired_at_s != stack.acquired_at_s and (d := delay_s(s)) is not None and abs(d - delay) < 1.0
        for s in siblings
    ):
        return None
    for phase, least, most in _TIMING:
        if least <= delay <= most:
            when = f"{delay:.0f} s after" if delay >= 0 else f"{-delay:.0f} s before"
            return _Evidence(phase, f"acquired {when} the start of the contrast bolus")
    return None


def delay_s(stack: Stack) -> float | None:
    """Seconds from Contrast/Bolus Start Time (0018,1042) to the acquisition."""
    a = stack.attributes
    start, acquired = seconds_of_day(a.get("ContrastBolusStartTime")), acquisition_time_s(a)
    if start is None or acquired is None:
        return None
    delay = (stack.acquired_at_s or acquired) % 86400.0 - start
    if days(a.get("AcquisitionDate")) is not None and delay < -43200.0:
        delay += 86400.0  # over midnight
    return delay


def _add_hints(stacks: Sequence[Stack], evidence: dict[int, list[_Evidence]]) -> None:
    """AP and its like count where a sibling's name shows that the exam's phases are called so."""
    hints = {i: words_of(str(stacks[i].attributes.get("SeriesDescription") or "")).hints for i in evidence}
    named = {i: {e.phase for e in found} for i, found in evidence.items()}
    for i, found in evidence.items():
        if found or len(hints[i]) != 1:
            continue
        phase, word = next(iter(hints[i].items()))
        company = any((named[j] | set(hints[j])) - {phase} for j in evidence if j != i)
        if company:
            found.append(_Evidence(phase, f"SeriesDescription says '{word}', beside series of other phases"))


def _add_order_in_time(stacks: Sequence[Stack], evidence: dict[int, list[_Evidence]]) -> None:
    """A stack that follows the arterial one by half a minute is portal-venous, and the other way round."""

    def time(i: int) -> float | None:
        return stacks[i].acquired_at_s

    certain = {i: found[0].phase for i, found in evidence.items() if len({e.phase for e in found}) == 1}
    silent = [i for i, found in evidence.items() if not found and time(i) is not None]
    least, most = _ARTERIAL_TO_PORTAL_S
    for i in silent:
        for j, phase in certain.items():
            earlier = time(j)
            if earlier is None or phase not in ("arterial", "portal_venous"):
                continue
            gap = (time(i) or 0.0) - earlier
            if phase == "arterial" and least <= gap <= most:
                evidence[i].append(
                    _Evidence("portal_venous", f"acquired {gap:.0f} s after {stacks[j].name} (arterial)")
                )
            elif phase == "portal_venous" and least <= -gap <= most:
                evidence[i].append(
                    _Evidence("arterial", f"acquired {-gap:.0f} s before {stacks[j].name} (portal-venous)")
                )
    enhanced = [i for i in silent if not evidence[i] and _is_enhanced(stacks[i])]
    moments = sorted({time(i) or 0.0 for i in enhanced})
    if len(moments) == 2 and least <= moments[1] - moments[0] <= most:
        for i in enhanced:
            phase = "arterial" if time(i) == moments[0] else "portal_venous"
            place = "first" if phase == "arterial" else "second"
            gap = moments[1] - moments[0]
            text = f"{place} of two enhanced acquisitions {gap:.0f} s apart"
            evidence[i].append(_Evidence(phase, text))


def _is_enhanced(stack: Stack) -> bool:
    return str(stack.attributes.get("ContrastBolusAgent") or "").strip().casefold() not in _AGENT_ABSENT


# ------------------------------------------------------------------ verdict


def _verdict(stack: Stack, evidence: Sequence[_Evidence], measured: Enhancement | None) -> Verdict:
    phases = list(dict.fromkeys(e.phase for e in evidence))
    text = "; ".join(e.text for e in evidence)
    seen = measured.phase if measured is not None else None
    why = f"{measured.reason}, as in the {_spoken(seen)} phase" if measured is not None and seen else ""
    if not phases:
        if seen:
            return Verdict(kind_of_phase(seen), f"the header names no phase; in the pixels {why}")
        agent = "a contrast agent is given" if _is_enhanced(stack) else "no contrast agent is given"
        looked = f"; in the pixels {measured.reason}" if measured is not None else ""
        return Verdict(UNKNOWN_PHASE, f"neither phase, timing nor description tell the phase; {agent}{looked}")
    phase = phases[0]
    if len(phases) > 1:
        others = " and ".join(_spoken(p) for p in phases[1:])
        if seen in phases:
            return Verdict(
                kind_of_phase(str(seen)), f"the header contradicts itself ({text}); the pixels decide: {why}"
            )
        return Verdict(
            kind_of_phase(phase), f"{text}; the header contradicts itself ({others}), the stronger evidence counts"
        )
    if seen and seen != phase:
        return Verdict(kind_of_phase(phase), f"{text}; warning: the pixels look {_spoken(seen)} ({_plainly(measured)})")
    if seen:
        return Verdict(kind_of_phase(phase), f"{text}; the pixels agree")
    return Verdict(kind_of_phase(phase), text)


def _spoken(phase: str | None) -> str:
    return {"portal_venous": "portal-venous", "plain": "unenhanced"}.get(phase or "", phase or "")


def _plainly(measured: Enhancement | None) -> str:
    return measured.reason if measured is not None else ""


def _settle_pair_by_pixels(
    stacks: Sequence[Stack], verdicts: list[Verdict | None], measured: dict[int, Enhancement | None]
) -> None:
    """Of exactly two stacks whose phase nothing tells, the one with the brighter liver came later.

    Also where one is settled and the other not, and they can be compared.
    """
    unknown = [i for i, v in enumerate(verdicts) if v is not None and v.kind == UNKNOWN_PHASE]
    known = {
        phase: [i for i, v in enumerate(verdicts) if v is not None and v.kind == kind_of_phase(phase)]
        for phase in ("arterial", "portal_venous")
    }
    if len(unknown) == 2 and not known["arterial"] and not known["portal_venous"]:
        pair = (unknown[0], unknown[1])
    elif len(unknown) == 1 and len(known["arterial"]) + len(known["portal_venous"]) == 1:
        pair = (unknown[0], (known["arterial"] + known["portal_venous"])[0])
    else:
        return
    a, b = measured.get(pair[0]), measured.get(pair[1])
    first = earlier_of(a, b) if a is not None and b is not None else None
    if first is None or not all(_is_enhanced(stacks[i]) for i in pair):
        return
    for place, i in enumerate(pair):
        verdict = verdicts[i]
        if i not in unknown or verdict is None:
            continue
        phase = "arterial" if place == first else "portal_venous"
        if i != pair[1] and known[phase]:
            return  # the settled one has that phase already
        other = stacks[pair[1 - place]].name
        compared = "less" if phase == "arterial" else "more"
        text = f"the header names no phase; by its pixels the liver is enhanced {compared} than in {other}"
        verdicts[i] = replace(verdict, kind=kind_of_phase(phase), reason=text)
