"""The page that sums up an answer, as Secondary Capture and as Encapsulated PDF."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from encoded_studies import ball, ct_stack, lesion, liver_findings, mr_stack, provenance, through_bytes, us_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from programs import need
from pydicom import Dataset, dcmread

from dicom_node.encoding.capture import capture, drawn
from dicom_node.encoding.document import document, pdf
from dicom_node.encoding.header import identity_bytes, to_bytes
from dicom_node.encoding.page import HEIGHT, WIDTH, refusal_page, summary_page
from dicom_node.encoding.segmentation import segments_of
from dicom_node.encoding.sheet import Line, Page, Picture, Text
from dicom_node.encoding.sources import SourceImages, SourceStack, source_images, source_stack
from dicom_node.encoding.views import MAX_VIEWS, patient_directions, views_of
from dicom_node.encoding.window import Window, to_grey, window_of
from pipelines.findings import Evaluation, Findings, ImageStatement, Map, Measurement, PlanarFinding

SHAPE, SPACING = (12, 64, 64), (2.5, 0.8, 0.8)


def ct_images() -> tuple[SourceStack, NDArray[np.float32]]:
    images = source_stack([through_bytes(ds) for ds in ct_stack()])
    return images, np.random.default_rng(0).normal(80, 30, SHAPE).astype(np.float32)


def ct_page(findings: Findings | None = None) -> Page:
    images, pixels = ct_images()
    findings = findings or liver_findings(headline="2 lesions: 1 malignant, 1 benign")
    return summary_page(findings, segments_of(findings, SHAPE, provenance()), images, pixels, provenance())


def mr_answer() -> tuple[Findings, SourceImages, NDArray[np.float32]]:
    images = source_stack([through_bytes(ds) for ds in mr_stack(4)])
    shape = images.shape
    values = np.random.default_rng(1).normal(3, 0.5, shape).astype(np.float32)
    values[:, : shape[1] // 2] = np.nan
    findings = Findings(
        "magnitude",
        (),
        maps=(Map("Stiffness", "elasticity", "kPa", values),),
        images=(ImageStatement(1, "Slice 2", evaluations=(Evaluation("quality", "non_diagnostic"),)),),
        measurements=(Measurement("elasticity", 3.04, "kPa"),),
        headline="Diagnostic",
    )
    return findings, images, np.full(shape, 300, np.float32)


def circle(x: float, y: float, radius: float) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 30)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def us_answer(**clip: object) -> tuple[Findings, SourceImages, NDArray[np.uint8]]:
    """A clip whose upper rows hold a bright banner with the name, as devices write it."""
    images = source_images([through_bytes(us_clip(20, **clip))])
    pixels = np.full((20, 96, 128, 3), 60, np.uint8)
    pixels[:, :16] = (1, 254, 3)
    found = tuple(
        PlanarFinding(f"Lesion {number}", "lesion", "liver", frame, circle(60 + 5 * number, 50, 9),
                      (Measurement("long_axis", 14.2, "mm"),), (Evaluation("malignancy", "benign"),))
        for number, frame in ((1, 4), (2, 4), (3, 11))
    )  # fmt: skip
    return Findings("bmode", (), planar=found), images, pixels


def region(top: int) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat = 1
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 0, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 127, 95
    return item


def words(page: Page) -> str:
    return "\n".join(item.text for item in page.items if isinstance(item, Text))


def test_the_page_says_what_it_is_what_was_found_and_where_it_comes_from() -> None:
    text = words(ct_page())
    assert text.splitlines()[0] == "RESEARCH USE, UNVERIFIED; TRAINED ON SIMULATED IMAGES"
    for part in ("AI CT liver lesions 0.1.0", "2 lesions: 1 malignant, 1 benign", "Hepatocellular carcinoma", "87.4 %",
                 "23.1 mm", "Lesion 2", "image 6", "models: ct_liver 0.1.0", "2026-01-15 10:30"):  # fmt: skip
        assert part in text


def everything_lies_on(page: Page) -> None:
    """No text runs out of the page."""
    from dicom_node.encoding.fonts import text_width

    for item in page.items:
        if isinstance(item, Text):
            width = text_width(item.text, item.size, item.bold)
            left = item.x - {"left": 0, "middle": width / 2, "right": width}[item.align]
            assert left >= 0, item
            assert left + width <= page.width + 1, item
            assert item.size <= item.baseline <= page.height, item
        elif isinstance(item, Picture):
            assert item.place.left >= 0
            assert item.place.top >= 0
            assert item.place.right <= page.width + 1
            assert item.place.bottom <= page.height + 1


@pytest.mark.parametrize("count", [0, 1, 7, 50, 120])
def test_any_number_of_findings_fits(count: int) -> None:
    rng = np.random.default_rng(count)
    found = []
    for index in range(count):
        mask = np.zeros(SHAPE, dtype=bool)
        z, y, x = rng.integers(0, 12), rng.integers(0, 60), rng.integers(0, 60)
        mask[z, y : y + 3, x : x + 4] = True
        found.append(lesion(f"Lesion {index + 1}", mask, 1.6, float(rng.uniform(0, 100)), "MET"))
    warnings = tuple(f"warning number {number}, " + "with many words " * 20 for number in range(6))
    page = ct_page(replace(liver_findings(lesions=0), findings=tuple(found), warnings=warnings if count == 7 else ()))
    everything_lies_on(page)
    text = words(page)
    if count <= 50:
        assert all(f"Lesion {index + 1}" in text for index in range(count))
    else:
        assert "more" in text
        assert "in the report" in text
    assert 1 <= len(page.shown) <= MAX_VIEWS


def test_the_pictures_show_as_many_findings_as_can_be() -> None:
    """Eight findings on two slices and one each on five: the two slices come first, and the first finding is shown."""
    found = []
    for index, z in enumerate([9, 1, 1, 1, 1, 5, 5, 5, 5, 0, 3, 7, 8, 10]):
        mask = np.zeros(SHAPE, dtype=bool)
        mask[z, 4 * index : 4 * index + 3, 10:20] = True
        found.append(lesion(f"Lesion {index + 1}", mask, 1.6, 60, "MET"))
    findings = Findings("portal_venous", tuple(found))
    images, pixels = ct_images()
    views = views_of(findings, segments_of(findings, SHAPE, provenance()), images, pixels)
    shown = [view.index for view in views.views]
    assert shown == sorted(shown)
    assert {1, 5, 9} < set(shown)
    assert len(shown) == 6
    assert views.missing == 2
    assert "2 findings have no picture here" in words(ct_page(findings))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_outlines_lie_around_their_masks(data: st.DataObject) -> None:
    """On the cropped picture each line goes around exactly the voxels of its part of the mask."""
    y, x = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    height, width = data.draw(st.integers(1, 13)), data.draw(st.integers(1, 13))
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4, y : y + height, x : x + width] = True
    findings = Findings("portal_venous", (lesion("Lesion 1", mask, 1.6, 60, "HCC"),))
    images = source_stack(ct_stack())
    pixels = mask.astype(np.uint8) * 200
    (view,) = views_of(findings, segments_of(findings, SHAPE, provenance()), images, pixels).views
    (line,) = view.lines
    left, top = line.points.min(axis=0)
    right, bottom = line.points.max(axis=0)
    rows, columns = np.nonzero(view.pixels[:, :, 0] == view.pixels.max())
    assert len(rows) == height * width
    assert (left, right) == (columns.min(), columns.max() + 1)
    assert (top, bottom) == (rows.min(), rows.max() + 1)


def test_lines_on_the_page_lie_on_their_picture() -> None:
    page = ct_page()
    pictures = [item.place for item in page.items if isinstance(item, Picture)]
    outlines = [item for item in page.items if isinstance(item, Line) and len(item.points) > 2]
    assert len(outlines) >= 3
    for line in outlines:
        (left, top), (right, bottom) = line.points.min(axis=0), line.points.max(axis=0)
        assert any(
            place.left <= left and right <= place.right and place.top <= top and bottom <= place.bottom
            for place in pictures
        )


def test_a_map_is_shown_in_colours_with_their_meaning() -> None:
    findings, images, pixels = mr_answer()
    page = summary_page(findings, [], images, pixels, provenance())
    everything_lies_on(page)
    text = words(page)
    for part in ("Stiffness, kPa", "Slice 2", "Non-diagnostic quality", "3.04 kPa", "Diagnostic"):
        assert part in text
    picture = next(item for item in page.items if isinstance(item, Picture))
    spread = picture.pixels.astype(int).max(axis=2) - picture.pixels.astype(int).min(axis=2)
    assert (spread > 30).mean() > 0.2  # coloured
    assert (spread == 0).mean() > 0.05  # and grey where the map has no value


def mre_answer(count: int = 4) -> tuple[Findings, SourceImages, NDArray[np.float32]]:
    """An exam of which one slice is not diagnostic, with the scanner's elastogram of all."""
    images = source_stack([through_bytes(ds) for ds in mr_stack(count)])
    shape = images.shape
    elastogram = np.linspace(0.5, 9, np.prod(shape), dtype=np.float32).reshape(shape)
    bad = (Evaluation("quality", "non_diagnostic"), Evaluation("quality_finding", "MOTION"))
    statements = tuple(
        ImageStatement(index, f"Slice {index + 1}", (Measurement("readable_area", 1.5 + index, "cm2"),),
                       (Evaluation("quality", "diagnostic"),) if index else bad,
                       "" if index else "repeat the breath-hold at end-expiration")
        for index in range(count)
    )  # fmt: skip
    findings = Findings(
        "magnitude", (), images=statements,
        shown=(Map("Elastogram", "shear_stiffness", "kPa", elastogram, (0.0, 8.0)),),
        measurements=(Measurement("diagnostic_slices", count - 1, "{slices}"),),
        evaluations=(Evaluation("study_quality", "non_diagnostic"), Evaluation("quality_finding", "MOTION")),
        verdict="REPEAT", headline="REPEAT: motion", warnings=("No stiffness is stated.",),
        remarks=("Bins: a source.",),
    )  # fmt: skip
    return findings, images, np.full(shape, 300, np.float32)


@pytest.mark.parametrize("count", [1, 4, 6, 8, 12])
def test_every_slice_stands_over_its_map_with_verdict_reason_and_advice(count: int) -> None:
    findings, images, pixels = mre_answer(count)
    page = summary_page(findings, [], images, pixels, provenance())
    everything_lies_on(page)
    texts = [item.text for item in page.items if isinstance(item, Text)]
    assert texts.count("Non-diagnostic quality") == 1
    assert texts.count("Diagnostic quality") == count - 1
    text = words(page)
    for part in ("REPEAT", "No stiffness is stated.", "Bins: a source.", "Motion", "repeat the breath-hold", "1.5 cm²"):
        assert part in text
    # one colour bar, and two pictures of each slice: the second one in colours
    pictures = [item for item in page.items if isinstance(item, Picture)]
    assert len(pictures) == 2 * count + 1
    grey = [np.ptp(item.pixels, axis=2).max() == 0 for item in pictures[:-1]]
    assert grey == [True, False] * count
    assert page.shown == tuple(range(count))
    named = capture(page, images.header, provenance(), images=images).SeriesDescription
    assert named.startswith("RESEARCH REPEAT: ")


def test_slices_that_leave_a_map_out_or_are_too_many_have_the_usual_page() -> None:
    findings, images, pixels = mre_answer(4)
    map_ = replace(findings.shown[0], label="Stiffness")
    page = summary_page(
        replace(findings, images=findings.images[:1], maps=(map_,), shown=()), [], images, pixels, provenance()
    )
    assert len(page.shown) == 4
    many, images, pixels = mre_answer(13)
    assert len(summary_page(many, [], images, pixels, provenance()).shown) == MAX_VIEWS


def test_maps_without_any_value_and_studies_without_pixels_have_a_page() -> None:
    findings, images, pixels = mr_answer()
    empty = replace(findings, maps=(replace(findings.maps[0], values=np.full_like(findings.maps[0].values, np.nan)),))
    everything_lies_on(summary_page(empty, [], images, pixels, provenance()))
    page = summary_page(findings, [], images, None, provenance())
    everything_lies_on(page)
    assert not page.shown
    assert "3.04 kPa" in words(page)


def test_a_refused_study_says_why() -> None:
    page = refusal_page(
        "no arterial phase: every series was acquired later than 60 s after the injection", provenance()
    )
    everything_lies_on(page)
    assert "Study not analysed" in words(page)
    assert "no arterial phase" in words(page)
    header = ct_stack(slices=1)[0]
    assert capture(page, header, provenance(), role="sc refusal").SOPInstanceUID != (
        capture(page, header, provenance()).SOPInstanceUID
    )


def test_the_frames_of_a_clip_are_shown_without_the_devices_banner() -> None:
    findings, images, pixels = us_answer(SequenceOfUltrasoundRegions=[region(16)])
    page = summary_page(findings, [], images, pixels, provenance())
    everything_lies_on(page)
    assert page.shown == (4, 11)
    assert "frame 5" in words(page)
    assert not page.may_identify
    green = drawn(page).astype(int)
    assert not ((green[..., 1] > 200) & (green[..., 0] < 60) & (green[..., 2] < 60)).any()


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ({}, True),  # nothing is known: the whole frame is shown, and declared
        ({"BurnedInAnnotation": "NO"}, False),
        ({"BurnedInAnnotation": "YES", "SequenceOfUltrasoundRegions": [region(16)]}, True),
        ({"SequenceOfUltrasoundRegions": [region(16)]}, False),
    ],
)
def test_pictures_that_may_name_the_patient_are_declared(clip: dict[str, object], expected: bool) -> None:
    findings, images, pixels = us_answer(**clip)
    page = summary_page(findings, [], images, pixels, provenance())
    for dataset in (capture(page, images.header, provenance()), document(page, images.header, provenance())):
        assert dataset.BurnedInAnnotation == ("YES" if expected else "NO")


def test_capture_and_document_are_plain_objects_of_the_study() -> None:
    images, _ = ct_images()
    page = ct_page()
    sc = dcmread(BytesIO(to_bytes(capture(page, images.header, provenance(), images=images))))
    doc = dcmread(BytesIO(to_bytes(document(page, images.header, provenance(), images=images))))
    assert sc.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert doc.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (sc.Rows, sc.Columns, sc.PhotometricInterpretation, sc.BitsAllocated) == (HEIGHT, WIDTH, "RGB", 8)
    assert np.array_equal(sc.pixel_array, drawn(page))
    assert (doc.Modality, doc.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert doc.EncapsulatedDocument[: doc.EncapsulatedDocumentLength] == pdf(page)
    assert len(doc.EncapsulatedDocument) % 2 == 0
    for dataset in (sc, doc):
        assert identity_bytes(dataset) == identity_bytes(images.header)
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert dataset.BurnedInAnnotation == "NO"
        assert dataset.SeriesDescription.startswith("RESEARCH")
    assert sc.SeriesInstanceUID != doc.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in sc.SourceImageSequence} == {
        images.slices[index].sop_instance_uid for index in page.shown
    }


def test_nothing_of_the_source_stands_on_the_page() -> None:
    """Neither in its words nor in the PDF; the header has the identity, as it must."""
    secrets = {"PatientName": "Zzyzx^Quilligan", "PatientID": "QQ-778899", "StudyDescription": "Xylophone",
               "SeriesDescription": "Wurlitzer", "InstitutionName": "Oompah Hospital", "AccessionNumber": "JJ55",
               "ManufacturerModelName": "Kazoo 9"}  # fmt: skip
    images = source_stack([through_bytes(ds) for ds in ct_stack(**secrets)])
    findings = liver_findings()
    pixels = np.zeros(SHAPE, np.float32)
    page = summary_page(findings, segments_of(findings, SHAPE, provenance()), images, pixels, provenance())
    text = words(page) + page.title + pdf_text(pdf(page))
    for secret in secrets.values():
        assert not any(part in text for part in secret.split("^"))
    # nor does the picture depend on it
    other = source_stack([through_bytes(ds) for ds in ct_stack()])
    same = summary_page(findings, segments_of(findings, SHAPE, provenance()), other, pixels, provenance())
    assert np.array_equal(drawn(page), drawn(same))
    assert pdf(page) == pdf(same)


def pdf_text(data: bytes) -> str:
    """The text of a PDF as Ghostscript finds it, lines put together."""
    done = subprocess.run(
        [need("gs"), "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=txtwrite", "-sOutputFile=-", "-"],
        input=data, capture_output=True, check=True,
    )  # fmt: skip
    return " ".join(done.stdout.decode().split())


def test_text_of_the_document_can_be_searched() -> None:
    text = pdf_text(pdf(ct_page()))
    assert "Hepatocellular carcinoma" in text
    assert "z -37.5 mm" in text  # with its sign


def test_another_process_makes_the_same_bytes(tmp_path: Path) -> None:
    """The time of day, random numbers or hash seeds would show here."""
    code = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "from test_page import *\n"
        "images, _ = ct_images()\n"
        "made = [f(ct_page(), images.header, provenance()) for f in (capture, document)]\n"
        "print([hashlib.sha256(to_bytes(d)).hexdigest() for d in made])"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Shanghai"}
    found = subprocess.run([sys.executable, "-c", code, str(here), str(here.parent), str(here.parent.parent)],
                           capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)  # fmt: skip
    images, _ = ct_images()
    made = [make(ct_page(), images.header, provenance()) for make in (capture, document)]
    assert found.stdout.strip() == str([hashlib.sha256(to_bytes(item)).hexdigest() for item in made])


def test_no_heavy_library_is_needed() -> None:
    code = "import sys, dicom_node.encoding.capture, dicom_node.encoding.document; print(*sorted(sys.modules))"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert not {"torch", "SimpleITK", "monai", "matplotlib"} & set(done.stdout.split())


ANSWERS: dict[str, Callable[[], tuple[Findings, SourceImages, NDArray]]] = {
    "ct": lambda: (liver_findings(), *ct_images()),
    "mr": mr_answer,
    "us": us_answer,
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_dciodvfy_finds_no_fault(kind: str, tmp_path: Path) -> None:
    findings, images, pixels = ANSWERS[kind]()
    segments = segments_of(findings, SHAPE, provenance()) if kind == "ct" else []
    page = summary_page(findings, segments, images, pixels, provenance())
    for make in (capture, document):
        path = tmp_path / f"{make.__name__}.dcm"
        path.write_bytes(to_bytes(make(page, images.header, provenance(), images=images)))
        output = subprocess.run([need("dciodvfy"), "-new", str(path)], capture_output=True, text=True).stderr
        assert not [line for line in output.splitlines() if line.startswith(("Error", "Warning"))], path.name


# ------------------------------------------------------------------ brightness and directions


def header(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def test_the_sources_window_is_used_where_it_shows_something() -> None:
    values = np.linspace(-100, 300, 1000)
    assert window_of(header(WindowCenter=80, WindowWidth=300), values) == Window(-70, 229)
    assert window_of(header(WindowCenter=["80", "40"], WindowWidth=["300", "20"]), values) == Window(-70, 229)
    exact = header(WindowCenter=80, WindowWidth=300, VOILUTFunction="LINEAR_EXACT")
    assert window_of(exact, values) == Window(-70, 230)
    useless = window_of(header(WindowCenter=5000, WindowWidth=100), values)
    assert useless == Window(pytest.approx(-98), pytest.approx(298))
    assert window_of(header(), values) == useless
    shared, voi = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 80, 300
    shared.FrameVOILUTSequence = [voi]
    assert window_of(header(SharedFunctionalGroupsSequence=[shared]), values) == Window(-70, 229)


def test_pictures_of_8_bits_are_shown_as_they_are_and_constant_ones_too() -> None:
    picture = np.full((4, 4), 130, np.uint8)
    assert window_of(header(), picture) == Window(0, 255)
    assert (to_grey(picture, Window(0, 255)) == 130).all()
    assert window_of(header(), np.full((4, 4), 7.0)).low == 7
    assert window_of(header(), np.full((4, 4), np.nan)) == Window(0, 1)


def test_monochrome1_is_bright_where_values_are_low() -> None:
    window = window_of(
        header(PhotometricInterpretation="MONOCHROME1", WindowCenter=50, WindowWidth=101), np.arange(101)
    )
    grey = to_grey(np.asarray([0.0, 50.0, 100.0, np.nan]), window)
    assert grey[0] > 250
    assert grey[2] < 5
    assert 120 < grey[1] < 135


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ((1, 0, 0, 0, 1, 0), ("R", "L", "A", "P")),
        ((-1, 0, 0, 0, 1, 0), ("L", "R", "A", "P")),
        ((1, 0, 0, 0, 0, -1), ("R", "L", "H", "F")),
        ((0, 1, 0, 0, 0, -1), ("A", "P", "H", "F")),
        ((0.8, 0.6, 0, 0, 0, -1), ("RA", "LP", "H", "F")),
    ],
)
def test_letters_say_where_the_patients_sides_are(orientation: tuple[float, ...], expected: tuple[str, ...]) -> None:
    assert patient_directions(orientation) == expected


def test_pixels_that_are_not_square_are_not_squeezed() -> None:
    findings = Findings(
        "portal_venous", (lesion("Lesion 1", ball(SHAPE, (6, 32, 32), 6, (2.5, 1.6, 0.8)), 3.2, 60, "HCC"),)
    )
    images = source_stack(ct_stack(spacing=(2.5, 1.6, 0.8)))
    page = summary_page(findings, segments_of(findings, SHAPE, provenance()), images, np.zeros(SHAPE), provenance())
    line = next(item for item in page.items if isinstance(item, Line) and len(item.points) > 2)
    width, height = np.ptp(line.points, axis=0)
    assert 0.85 < width / height < 1.18  # a ball is round
