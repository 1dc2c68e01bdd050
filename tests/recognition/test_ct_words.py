"""What radiographers write: phases in several languages, and words that only look like one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.recognition.ct_words import extra_of, is_sharp_kernel, words_of


@pytest.mark.parametrize(
    ("phase", "texts"),
    [
        (
            "arterial",
            [
                "ARTERIAL", "Art 1.0 B30f", "ART_PHASE", "art35s", "HAP", "late arterial phase", "Early Art.",
                "A phase",
                "Leber arteriell 3.0", "spätarteriell", "Phase artérielle", "artériel tardif", "fase arterial",
                "动脉期", "动脉期 1.25mm", "CE动脉", "腹部 動脈",
            ],
        ),
        (
            "portal_venous",
            [
                "PORTAL VENOUS", "PVP", "PV 5mm", "PV1.0", "Abd_portal", "portal venous phase", "venous", "Ven 1.0",
                "portalvenös 3.0", "Portalvenoes", "porto-veineux", "fase portal", "门静脉期", "门脉期", "静脉期",
            ],
        ),
        (
            "delayed",
            [
                "Delay", "delayed 5min", "equilibrium", "LATE", "late venous", "Spätphase", "temps tardif",
                "fase tardía",
                "5 min", "延迟期", "平衡期",
            ],
        ),
        (
            "plain",
            [
                "plain", "WO CONTRAST", "W/O", "w/o contrast", "non-con", "Non Contrast", "NCCT", "unenhanced", "nativ",
                "pre-contrast", "C-", "ABD C- 5.0", "sans IV", "sin contraste", "ohne KM", "平扫", "腹部平扫",
            ],
        ),
    ],
)  # fmt: skip
def test_phases(phase: str, texts: list[str]) -> None:
    assert {text: words_of(text).phase for text in texts} == dict.fromkeys(texts, phase)


@pytest.mark.parametrize(
    "text",
    [
        "", "Liver", "Abdomen 5.0 I40f 3", "C+", "增强", "CT 3 phase liver", "triphasic", "multiphase art", "三期增强",
        "liver art/pv/delay", "w & wo", "ABD W WO", "department", "cartilage", "Part 1", "start", "Heart", "cardiac",
        "Vena cava", "Topogram AP", "Chest AP", "CT AP W CON", "CAP", "AP", "下腔静脉",
    ],
)  # fmt: skip
def test_texts_that_name_no_single_phase(text: str) -> None:
    assert words_of(text).phase is None


def test_ap_is_a_hint_only_where_nothing_speaks_of_a_projection_or_the_pelvis() -> None:
    assert {text: set(words_of(text).hints) for text in ("AP", "LIVER AP 1.25", "VP", "DP")} == {
        "AP": {"arterial"},
        "LIVER AP 1.25": {"arterial"},
        "VP": {"portal_venous"},
        "DP": {"delayed"},
    }
    for text in ("Topogram AP", "Scout AP/LAT", "Chest AP", "CT AP W CON", "CT ABD PELV AP"):
        assert not words_of(text).hints, text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Scout", "localizer"), ("Topogram 0.6", "localizer"), ("Surview", "localizer"), ("定位像", "localizer"),
        ("Monitoring", "bolus tracking"), ("PreMonitoring", "bolus tracking"), ("Smart Prep", "bolus tracking"),
        ("MPR cor", "mpr"), ("MIP 10", "mpr"), ("3D VRT", "mpr"), ("VNC", "ct derived map"),
        ("Iodine map", "ct derived map"),
        ("Bone 1.0", "bone kernel"), ("Lung", "bone kernel"), ("Knochen", "bone kernel"), ("骨窗", "bone kernel"),
        ("ART", None), ("PVP 2.5", None), ("Liver", None),
    ],
)  # fmt: skip
def test_extras(text: str, kind: str | None) -> None:
    found = extra_of(text)
    assert (found and found[0]) == kind


def test_kernels() -> None:
    sharp = [
        "B60f",
        "B70s",
        "Br64",
        "Bl57d",
        "I70f",
        "BONE",
        "BONEPLUS",
        "LUNG",
        "EDGE",
        "FC51",
        "FC30",
        "YD",
        "L",
        "B_SHARP_C",
    ]
    soft = ["B30f", "Br40d", "I40f\\3", "STANDARD", "SOFT", "FC08", "FC18", "B", "C", "YA", "Qr40", "DETAIL", "", "any"]
    assert [k for k in sharp if not is_sharp_kernel(k)] == []
    assert [k for k in soft if is_sharp_kernel(k)] == []


@settings(deadline=None)
@given(st.text(max_size=70))
def test_no_text_raises(text: str) -> None:
    assert words_of(text).phase in (None, "arterial", "portal_venous", "delayed", "plain")
    extra_of(text)
    is_sharp_kernel(text)
