"""MR elastography in a study: what each image is, which belong together, and that nothing else is taken for it."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elastography_exams import (
    EXAMS,
    OFFSETS,
    SLICES,
    canon,
    ge,
    ge_private,
    image,
    indexed,
    ordinary_mr,
    philips,
    siemens,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.recognition.elastography import MreStack, elastography
from dicom_node.recognition.elastography_words import own_text, product_in, stated_frequencies_hz
from dicom_node.recognition.headers import UnreadableHeader, read_instance
from dicom_node.recognition.study import recognise
from storage.records import Instance

SHARED_MR = Path(__file__).parents[2].parent / "shared" / "data" / "mr"
#: Per exam: component -> (slices, images per slice).
EXPECTED: dict[str, dict[str, tuple[int, int]]] = {
    "GE": dict.fromkeys(("magnitude", "phase"), (SLICES, OFFSETS))
    | dict.fromkeys(("wave", "elastogram", "confidence", "colour"), (SLICES, 1)),
    "Siemens enhanced": dict.fromkeys(("magnitude", "phase"), (SLICES, OFFSETS)),
    "Philips": {"magnitude": (SLICES, OFFSETS), "phase": (SLICES, OFFSETS), "elastogram": (SLICES, 1)},
    "Canon": {"magnitude": (SLICES, 1), "phase": (SLICES, OFFSETS), "elastogram": (SLICES, 1)},
}
EXPECTED |= {"Siemens": EXPECTED["GE"], "Siemens XA": EXPECTED["GE"], "Philips GRE": EXPECTED["Philips"]}


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Instance]]:
    """Every vendor's exam as the index knows it; "ordinary" is MR without elastography."""
    made = {name: indexed(make(), tmp_path_factory.mktemp("exam")) for name, make in EXAMS.items()}
    return made | {"ordinary": indexed(ordinary_mr(), tmp_path_factory.mktemp("exam"))}


def sizes(parts: list[MreStack]) -> dict[str, tuple[int, int]]:
    return {p.component: (p.stack.slices, max(p.stack.offsets or (1,))) for p in parts}


@pytest.mark.parametrize("vendor", EXAMS)
def test_every_vendors_exam_is_one_acquisition(vendor: str, exams: dict[str, list[Instance]]) -> None:
    parts, others = elastography([*exams[vendor], *exams["ordinary"]])
    assert sizes(parts) == EXPECTED[vendor]
    assert {p.group for p in parts} == {"elastography 1"}
    assert len({p.stack.stack_id for p in parts}) == len(parts)
    assert {i.sop_instance_uid for i in others} == {i.sop_instance_uid for i in exams["ordinary"]}
    for part in parts:
        assert part.reason
        assert not part.stack.gaps
        assert part.stack.spacing_mm == 10.0
        assert not part.stack.duplicates


@pytest.mark.parametrize("vendor", EXAMS)
def test_verdicts_say_why(vendor: str, exams: dict[str, list[Instance]]) -> None:
    recognised = recognise(exams[vendor])
    assert {r.kind for r in recognised.stacks} == {f"mre {component}" for component in EXPECTED[vendor]}
    told = {"GE": "MR-Touch", "Siemens": "epseMRE2d", "Philips": "MRE", "Canon": "PhaseDiff"}
    phase = next(r for r in recognised.stacks if r.kind == "mre phase")
    assert told.get(vendor, "ELASTO" if vendor.startswith("Siemens") else "MRE") in phase.reason
    assert "with magnitude series" in phase.reason
    assert sum(s.images for s in recognised.series) == len(exams[vendor])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_arrival_does_not_matter(data: st.DataObject, exams: dict[str, list[Instance]]) -> None:
    vendor = data.draw(st.sampled_from(list(EXAMS)))
    images = [*exams[vendor], *exams["ordinary"][:8]]
    shuffled = data.draw(st.permutations(images))
    ours, theirs = elastography(shuffled)[0], elastography(images)[0]
    key = lambda part: part.stack.stack_id  # noqa: E731
    assert sorted(ours, key=key) == sorted(theirs, key=key)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_missing_image_never_makes_one_thing_of_another(
    data: st.DataObject, exams: dict[str, list[Instance]]
) -> None:
    vendor = data.draw(st.sampled_from([name for name in EXAMS if name != "Siemens enhanced"]))
    whole = {i.sop_instance_uid: p.component for p in elastography(exams[vendor])[0] for i in p.stack.instances}
    lost = data.draw(st.sets(st.integers(0, len(exams[vendor]) - 1), max_size=6))
    rest = [i for n, i in enumerate(exams[vendor]) if n not in lost]
    parts, others = elastography(rest)
    for part in parts:
        if part.component == "raw":  # GE's halves are not told apart rather than told apart wrongly
            continue
        for instance in part.stack.instances:
            assert whole[instance.sop_instance_uid] == part.component
    there = [i for p in parts for i in p.stack.instances + p.stack.duplicates] + others
    assert {i.sop_instance_uid for i in there} == {i.sop_instance_uid for i in rest}


def test_ordinary_mr_is_never_elastography(exams: dict[str, list[Instance]]) -> None:
    parts, others = elastography(exams["ordinary"])
    assert parts == []
    assert len(others) == len(exams["ordinary"])


@pytest.mark.skipif(not SHARED_MR.is_dir(), reason="the shared MR files are not here")
def test_real_mr_files_are_never_elastography(tmp_path: Path, exams: dict[str, list[Instance]]) -> None:
    found = real_files(tmp_path)
    assert len(found) > 40
    assert elastography(found)[0] == []
    for vendor in ("GE", "Philips", "Siemens"):
        study = [replace(i, study_instance_uid=exams[vendor][0].study_instance_uid) for i in found]
        parts, others = elastography([*exams[vendor], *study])
        assert len(others) == len(found)
        assert sizes(parts) == EXPECTED[vendor]


def real_files(folder: Path) -> list[Instance]:
    """All readable images below the shared MR folder, packed ones unpacked."""
    import gzip
    import zipfile

    found = []
    for path in sorted(p for p in SHARED_MR.rglob("*") if p.is_file()):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
            continue
        if path.suffix == ".gz":
            unpacked = folder / path.stem
            unpacked.write_bytes(gzip.decompress(path.read_bytes()))
            path = unpacked
        if path.suffix in (".md", ".txt", ".json", ".bval", ".bvec") or path.name in ("LICENSE", "COPYING"):
            continue
        found.append(path)
    found += [p for p in sorted(folder.rglob("*.dcm")) if p not in found]
    instances = {}
    for path in found:
        with suppress(UnreadableHeader):  # some of the samples have no study
            instance = read_instance(path)
            instances[instance.sop_instance_uid] = instance
    return list(instances.values())


# ------------------------------------------------------------------ GE


def components(datasets: list[Any], folder: Path) -> dict[str, str]:
    parts, _ = elastography(indexed(datasets, folder))
    return {i.sop_instance_uid: p.component for p in parts for i in p.stack.instances}


def raw_of_ge() -> list[Any]:
    return [ds for ds in ge() if ds.SeriesNumber == 4]


def test_ge_private_elements_are_found_in_any_block_and_only_through_their_creator(tmp_path: Path) -> None:
    moved = [ge_private(strip(ds), block=0x42) for ds in raw_of_ge()]
    (folder := tmp_path / "a").mkdir()
    assert set(components(moved, folder).values()) == {"phase", "magnitude"}
    foreign = [strip(ds) for ds in raw_of_ge()]
    for ds in foreign:
        ds.add_new((0x0019, 0x0010), "LO", "SOMEBODY ELSE")
        ds.add_new((0x0019, 0x109C), "LO", "MR-Touch")
        ds.SeriesDescription = "Ax 60Hz"
    (folder := tmp_path / "b").mkdir()
    assert components(foreign, folder) == {}


def strip(ds: Any) -> Any:
    for tag in [element.tag for element in ds if element.tag.group == 0x0019]:
        del ds[tag]
    return ds


def test_ge_private_elements_are_read_from_implicit_files(tmp_path: Path) -> None:
    kinds = [ge_private(ds, kind=int(n < 16)) for n, ds in enumerate(raw_of_ge())]
    found = indexed(kinds, tmp_path, implicit=True)
    assert {i.attributes["GeImageKind"] for i in found} == {0, 1}
    assert {p.component for p in elastography(found)[0]} == {"phase", "magnitude"}


def test_ge_image_type_decides_before_the_halves(tmp_path: Path) -> None:
    turned = [ge_private(ds, kind=int(n >= 16)) for n, ds in enumerate(raw_of_ge())]
    found = components(turned, tmp_path)
    assert {found[ds.SOPInstanceUID] for ds in turned[:16]} == {"magnitude"}


def test_ge_half_a_series_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    first_half = [ds for ds in raw_of_ge() if ds.InstanceNumber <= 16]
    assert set(components(first_half, tmp_path).values()) == {"raw"}
    part = elastography(indexed(first_half, tmp_path))[0][0]
    assert "2 phase offsets, too few" in part.reason
    for ds in first_half:
        ds.ImagesInAcquisition = 32
    assert set(components(first_half, tmp_path).values()) == {"phase"}


def test_ge_research_series_that_are_not_read_say_so(tmp_path: Path) -> None:
    for name, directions, expected in (
        ("iqmre2d", None, "complex raw data"), ("epimre", 3, "raw in three directions"), ("fgremre", None, "phase"),
    ):  # fmt: skip
        (folder := tmp_path / name).mkdir()
        datasets = [ge_private(strip(ds), name=name) for ds in raw_of_ge()]
        for ds in datasets:
            if directions:
                ds.add_new((0x0019, 0x107E), "SS", directions)
        assert expected in components(datasets, folder).values()


# ------------------------------------------------------------------ pairs and sets


def test_a_repeated_scan_is_an_acquisition_of_its_own(tmp_path: Path) -> None:
    for name, first, second in (
        ("siemens", siemens(), siemens(series=30, time="102500")),
        ("philips", philips(), philips(series=30, time="102500")),
    ):
        (folder := tmp_path / name).mkdir()
        parts, _ = elastography(indexed([*first, *second], folder))
        groups = {g: {p.component for p in parts if p.group == g} for g in ("elastography 1", "elastography 2")}
        assert groups["elastography 1"] == groups["elastography 2"] == {p.component for p in parts}
        for part in parts:
            of_second = (part.stack.attributes["SeriesNumber"] or 0) >= 7 and part.stack.attributes[
                "AcquisitionTime"
            ] == "102500"
            assert part.group == ("elastography 2" if of_second else "elastography 1")


def test_a_philips_magnitude_needs_its_phase(tmp_path: Path) -> None:
    only_magnitude = [ds for ds in philips() if "M" in ds.ImageType]
    assert components(only_magnitude, tmp_path) == {}
    (folder := tmp_path / "later").mkdir()
    later = [ds for ds in philips() if "P" in ds.ImageType]
    for ds in later:
        ds.AcquisitionTime = "104500"
    assert set(components([*only_magnitude, *later], folder).values()) == {"phase"}
    (folder := tmp_path / "said").mkdir()
    for ds in only_magnitude:
        ds.ProtocolName = "MR Elastography"
    assert set(components(only_magnitude, folder).values()) == {"magnitude"}


def test_philips_in_three_directions_is_not_read(tmp_path: Path) -> None:
    datasets = [ds for ds in philips() if "ORIGINAL" in ds.ImageType]
    for ds in datasets:
        ds.NumberOfTemporalPositions = 3
    assert set(components(datasets, tmp_path).values()) == {"raw in three directions"}


def test_the_whole_elastogram_and_the_picture_with_confidence_are_meant(tmp_path: Path) -> None:
    datasets = siemens()
    for ds in siemens():
        if "Stiffness" in ds.SeriesDescription:
            ds.SeriesInstanceUID, ds.SOPInstanceUID = (
                f"{ds.SeriesInstanceUID}9",
                f"{ds.SeriesInstanceUID}9.{ds.InstanceNumber}",
            )
            is_colour = ds.SamplesPerPixel == 3
            ds.SeriesDescription = "liver stiffness mre_Stiffness" + ("_color" if is_colour else "_95")
            ds.SeriesNumber = 1
            datasets.append(ds)
    parts, _ = elastography(indexed(datasets, tmp_path))
    ranks = {(p.component, p.stack.attributes["SeriesNumber"]): p.rank for p in parts}
    assert (ranks[("elastogram", 1)], ranks[("elastogram", 7)]) == (1, 0)
    assert (ranks[("colour", 1)], ranks[("colour", 9)]) == (1, 0)


def test_mmdi_output_names_itself(tmp_path: Path) -> None:
    made = []
    for n, token in enumerate(("STIFFNESS", "CONFIDENCE", "MAGRMS", "PHSDIFFZ", "DAMPING")):
        made += [image(n + 1, p + 1, p, 5, ImageType=["DERIVED", "SECONDARY", "MMDI3D", token]) for p in range(3)]
    found = components(made, tmp_path)
    assert [found[f"{made[0].StudyInstanceUID}.{n}.1"] for n in range(1, 6)] == [
        "elastogram", "confidence", "magnitude", "phase", "other map",
    ]  # fmt: skip


def test_a_picture_without_geometry_is_shown_as_such(tmp_path: Path) -> None:
    datasets = [ds for ds in ge() if ds.SeriesNumber == 43]
    for ds in datasets:
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
    recognised = recognise(indexed(datasets, tmp_path))
    assert [r.kind for r in recognised.stacks] == ["mre colour without geometry"]
    assert "no position" in recognised.stacks[0].reason


def test_an_image_sent_twice_is_a_duplicate(tmp_path: Path) -> None:
    datasets = siemens()
    again = [ds for ds in siemens() if ds.SeriesNumber == 5 and ds.InstanceNumber == 3]
    again[0].SOPInstanceUID += ".9"
    parts, _ = elastography(indexed([*datasets, *again], tmp_path))
    phase = next(p.stack for p in parts if p.component == "phase")
    assert phase.offsets == (OFFSETS,) * SLICES
    assert len(phase.duplicates) == 1


def test_canon_without_a_word_of_elastography_needs_its_stiffness(tmp_path: Path) -> None:
    datasets = canon()
    for ds in datasets:
        ds.SeriesDescription = "liver"
    assert set(components(datasets, tmp_path).values()) == {"magnitude", "phase", "elastogram"}
    (folder := tmp_path / "b").mkdir()
    assert components([ds for ds in datasets if ds.ImageComments != "Stiffness"], folder) == {}


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ax MRE 60Hz", (60.0, None)), ("MRE 50 Hz, driver 60 Hz", (50.0, 60.0)), ("liver", (None, None)),
        ("bandwidth 500 Hz", (None, None)), ("driver frequency: 55.5 Hz", (None, 55.5)), ("1.60Hz", (None, None)),
        ("mre_60hz_2d", (60.0, None)),
    ],
)  # fmt: skip
def test_frequencies_in_texts(text: str, expected: tuple[float | None, float | None]) -> None:
    assert stated_frequencies_hz({"SeriesDescription": text}) == expected


@pytest.mark.parametrize(
    ("description", "protocol", "expected"),
    [
        ("liver stiffness_Mag", "liver stiffness", None), ("liver stiffness", "liver stiffness", None),
        ("MRE_Stiffness", "MRE", "elastogram"), ("MRE ConfMap", "", "confidence"), ("Wave Images", "", "wave"),
        ("Loss modulus (kPa)", "", "other"), ("microwave ablation planning", "", None), ("T1 conform", "", None),
    ],
)  # fmt: skip
def test_products_in_texts(description: str, protocol: str, expected: str | None) -> None:
    assert product_in(own_text({"SeriesDescription": description, "ProtocolName": protocol})) == expected
