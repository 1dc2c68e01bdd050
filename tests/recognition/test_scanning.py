"""The scan of a header gives what pydicom gives, and knows a Dataset that is cut off."""

import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from dicom_node.dimse.part10 import NotPart10Error, file_head, parse_file_head
from dicom_node.recognition.headers import UnreadableHeader, read_instance
from dicom_node.recognition.scanning import BEGINNING_BYTES, Beginning, scan
from storage.records import Instance

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CT, UID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
)  # fmt: skip
RLE = "1.2.840.10008.1.2.5"


def ct(**values: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = CT, UID, "1.2", "1.2.3"
    ds.Modality, ds.InstanceNumber, ds.ImagePositionPatient = "CT", 7, [1, 2.5, -3]
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated, ds.PixelData = 16, bytes(512)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def file_bytes(ds: Dataset, syntax: str, undefined_length: bool = False) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined_length
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined_length
    if "PixelData" in ds:
        ds["PixelData"].VR = "OB" if syntax == RLE else "OW"
        ds["PixelData"].is_undefined_length = syntax == RLE
    write_dataset(buffer, ds)
    written: bytes = buffer.getvalue()
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        written = deflate.compress(written) + deflate.flush()
    return file_head(CT, UID, syntax) + written


def beginning_of(data: bytes, n_bytes: int = BEGINNING_BYTES) -> Beginning:
    head = parse_file_head(data, "x")
    return Beginning(
        data[: max(n_bytes, head.dataset_offset)], len(data), head.dataset_offset, head.transfer_syntax_uid,
        head.sop_class_uid,
    )  # fmt: skip


def read(path: Path, data: bytes, n_bytes: int | None = BEGINNING_BYTES) -> Instance | str:
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read_instance(path, None if n_bytes is None else beginning_of(data, n_bytes))
        except UnreadableHeader as error:
            return str(error)


def rle(frames: int) -> bytes:
    fragments = b"".join(b"\xfe\xff\x00\xe0" + (64).to_bytes(4, "little") + bytes(64) for _ in range(frames))
    return b"\xfe\xff\x00\xe0\0\0\0\0" + fragments


@pytest.mark.parametrize("n_bytes", [BEGINNING_BYTES, 0, 700])
@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, RLE, DEFLATED])
def test_the_scan_reads_what_pydicom_reads(tmp_path: Path, syntax: str, undefined_length: bool, n_bytes: int) -> None:
    inner = Dataset()
    inner.CodeMeaning = "Spät"
    outer = Dataset()
    outer.ProcedureCodeSequence, outer.SeriesDescription = Sequence([inner, inner]), "not this one"
    ds = ct(
        SpecificCharacterSet="ISO_IR 100", SeriesDescription="Spätphase", RequestAttributesSequence=Sequence([outer]),
        ImageType=["ORIGINAL", "PRIMARY"], PatientAge="018M", DiffusionBValue=800.0, SliceThickness="",
    )  # fmt: skip
    ds.private_block(0x0029, "MAKER", create=True).add_new(1, "OB", bytes(40_000))
    if syntax == RLE:
        ds.PixelData = rle(3)
    data = file_bytes(ds, syntax, undefined_length)
    found = read(tmp_path / "a", data, n_bytes)
    assert isinstance(found, Instance)
    assert found == read(tmp_path / "a", data, None)
    assert found.attributes["SeriesDescription"] == "Spätphase"
    assert found.attributes["BitsAllocated"] == 16
    scanned = scan(beginning_of(data, n_bytes), {0x00280010}, 0x00280010, lambda at, length: data[at : at + length])
    assert (scanned is None) == (syntax == DEFLATED)
    assert scanned is None or (scanned.cut_off, list(scanned.elements)) == ("", [0x00280010])


def test_the_declared_character_set_counts_however_it_is_read(tmp_path: Path) -> None:
    for declared, text in (("ISO_IR 144", "Печень"), ("ISO_IR 126", "ήπαρ"), ("GB18030", "肝")):
        data = file_bytes(ct(SpecificCharacterSet=declared, SeriesDescription=text), EXPLICIT)
        for n_bytes in (None, BEGINNING_BYTES):
            found = read(tmp_path / "a", data, n_bytes)
            assert isinstance(found, Instance)
            assert found.attributes["SeriesDescription"] == text


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, RLE, DEFLATED])
def test_wherever_it_is_cut_off_it_is_refused(tmp_path: Path, syntax: str) -> None:
    ds = ct(PixelData=rle(2) if syntax == RLE else bytes(512))
    data = file_bytes(ds, syntax)
    start = beginning_of(data).dataset_offset
    assert isinstance(read(tmp_path / "a", data), Instance)
    passed = [length for length in range(start, len(data)) if isinstance(read(tmp_path / "a", data[:length]), Instance)]
    # between two elements nothing tells that more was to come; an object without its pixels is refused when it is used
    boundaries = len(ds) + (1 if syntax == RLE else 0)
    assert len(passed) <= boundaries, passed
    assert not any(length > start + (len(data) - start) * 0.9 for length in passed) or syntax in (RLE, DEFLATED)


def test_padding_and_a_missing_delimiter_are_let_pass(tmp_path: Path) -> None:
    whole = file_bytes(ct(), EXPLICIT)
    padded = file_bytes(ct(), EXPLICIT) + b"\xfc\xff\xfc\xffOB\0\0" + (6).to_bytes(4, "little") + bytes(6)
    unfinished = file_bytes(ct(PixelData=rle(2)), RLE)[:-8]
    for data in (whole + b"\0", whole + bytes(100), whole + b" " * 7, padded, unfinished):
        assert isinstance(read(tmp_path / "a", data), Instance)


def test_a_length_beyond_the_file_names_the_element(tmp_path: Path) -> None:
    data = file_bytes(ct(), EXPLICIT)
    at = data.index(b"\xe0\x7f\x10\x00OW") + 8
    for length in (0xFFFFFFFE, 513):
        found = read(tmp_path / "a", data[:at] + length.to_bytes(4, "little") + data[at + 4 :])
        assert isinstance(found, str)
        assert "7FE0,0010" in found


def test_an_endless_nest_takes_no_stack(tmp_path: Path) -> None:
    nest = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" * 100_000
    data = file_bytes(ct(), EXPLICIT)
    at = data.index(b"\x28\x00\x10\x00")
    found = read(tmp_path / "a", data[:at] + b"\x20\x00\x00\x90SQ\0\0\xff\xff\xff\xff" + nest)
    assert isinstance(found, str)


values = st.dictionaries(
    st.sampled_from(["SeriesDescription", "ProtocolName", "ImageComments", "ConvolutionKernel", "ScanOptions"]),
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30),
)


@given(values=values, syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG]), charset=st.sampled_from([None, "ISO_IR 100"]),
       n_bytes=st.sampled_from([0, 500, BEGINNING_BYTES]), data=st.data())  # fmt: skip
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_any_values_and_any_damage(
    tmp_path: Path, values: dict[str, str], syntax: str, charset: str | None, n_bytes: int, data: st.DataObject
) -> None:
    ds = ct(**values)
    if charset:
        ds.SpecificCharacterSet = charset
    try:
        whole = bytearray(file_bytes(ds, syntax))
    except UnicodeEncodeError:
        return
    path = tmp_path / "a"
    assert read(path, bytes(whole), n_bytes) == read(path, bytes(whole), None)
    start = beginning_of(bytes(whole)).dataset_offset
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(start, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = read(path, bytes(whole), n_bytes)
    if isinstance(damaged, Instance):
        by_pydicom = read(path, bytes(whole), None)
        assert isinstance(by_pydicom, Instance)
        # pydicom goes on through damage that the scan leaves to it, so where both read they agree
        assert replace(damaged, attributes={}) == replace(by_pydicom, attributes={})


def test_real_files_are_read_alike() -> None:
    read_alike = 0
    for path in sorted(p for p in SHARED.rglob("*") if p.is_file()):
        content = path.read_bytes()
        try:
            beginning = beginning_of(content)
        except NotPart10Error:
            continue
        answers = []
        for known in (None, beginning):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    answers.append(read_instance(path, known))
                except UnreadableHeader as error:
                    answers.append(str(error))  # type: ignore[arg-type]
        assert answers[0] == answers[1] or "cut off" in str(answers[1]), path.name
        read_alike += isinstance(answers[1], Instance)
    if not SHARED.is_dir():
        pytest.skip(f"no test data at {SHARED}")
    assert read_alike > 100
