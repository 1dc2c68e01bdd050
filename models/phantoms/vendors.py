"""How scanners of different makes word and number a two-phase liver CT: what the node must recognise."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vendor:
    """Header style of one maker. Texts are lists from which a study draws."""

    manufacturer: str
    models: tuple[str, ...]
    software: str
    soft_kernel: str
    bone_kernel: str
    arterial: tuple[str, ...]
    portal_venous: tuple[str, ...]
    plain: tuple[str, ...]
    delayed: tuple[str, ...]
    study: tuple[str, ...]
    protocol: str
    character_set: str  # Specific Character Set (0008,0005)
    signed: bool  # Pixel Representation 1
    intercept: int
    counts_images: bool  # fills Images in Acquisition (0020,1002)
    states_phase: bool  # fills Contrast/Bolus Agent Phase (0018,9344)
    states_injection: bool  # fills Contrast Bolus Start Time (0018,1042)


VENDORS: dict[str, Vendor] = {
    "GE": Vendor(
        "GE MEDICAL SYSTEMS", ("Revolution CT", "Discovery CT750 HD"), "revo_ct_22bc.50", "STANDARD", "BONEPLUS",
        ("AP 1.25mm", "Late Arterial", "LIVER ART"), ("PVP", "Portal Venous", "LIVER PV"),
        ("PLAIN", "NON CON"), ("DELAYED 3MIN",), ("CT LIVER 3 PHASE", "CT ABDOMEN LIVER W"),
        "5.12 Liver Multiphase", "ISO_IR 100", True, -1024, True, False, False,
    ),
    "Siemens": Vendor(
        "SIEMENS", ("SOMATOM Definition Flash", "SOMATOM Force"), "syngo CT VA50A", "B30f", "B70f",
        ("Leber arteriell 3.0 B30f", "Abd Arterial 3.0 I30f 3"), ("Abd PortalVenous 3.0 I30f 3", "Liver PV 3.0 B30f"),
        ("Abd Native 5.0 B30f",), ("Abd Delay 3.0 B30f",), ("Abdomen^Liver_3Phase (Adult)",),
        "Liver_3Phase", "ISO_IR 100", False, -1024, False, False, True,
    ),
    "Philips": Vendor(
        "Philips", ("iCT 256", "IQon - Spectral CT"), "4.1.7.28000", "B", "YD",
        ("ARTERIAL, iDose (3)", "AP"), ("PORTAL VENOUS, iDose (3)", "PVP"),
        ("W/O CONTRAST",), ("DELAY, iDose (3)",), ("CT liver dynamic",),
        "Liver 4 phase /Abdomen", "ISO_IR 100", False, -1024, False, False, True,
    ),
    "Canon": Vendor(
        "TOSHIBA", ("Aquilion ONE",), "V7.0ER005", "FC08", "FC30",
        ("CE-Art  3.0  Body", "Liver AP  CE"), ("CE-Portal  3.0  Body", "Liver PVP  CE"),
        ("Plain  3.0",), ("CE-Delay  3.0",), ("Liver Dynamic",),
        "Liver dynamic 3P", "ISO_IR 100", True, 0, False, True, False,
    ),
    "UIH": Vendor(
        "UIH", ("uCT 780", "uCT 960+"), "R004", "B_SOFT_B", "B_BONE_A",
        ("动脉期 3.0mm", "腹部增强 动脉期"), ("门静脉期 3.0mm", "腹部增强 门脉期"),
        ("平扫 5.0mm",), ("延迟期 3.0mm",), ("肝脏三期增强 Liver", "上腹部增强 liver"),
        "肝脏三期增强", "ISO_IR 192", False, -1024, True, False, True,
    ),
    "Neusoft": Vendor(
        "Neusoft Medical Systems", ("NeuViz 128",), "6.1", "SB", "F90",
        ("肝脏动脉期", "A期 增强"), ("肝脏门静脉期", "V期 增强 门脉"),
        ("肝脏平扫",), ("肝脏延迟期",), ("肝脏增强CT liver",),
        "Liver 增强", "GB18030", False, -1024, True, False, False,
    ),
}  # fmt: skip
