"""The look at a Dataset's first bytes: what is sound passes, noise and other objects do not, nothing ever raises."""

import time
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from dicom_node.dimse.contexts import TRANSFER_SYNTAXES
from dicom_node.dimse.dataset_start import MAX_START_BYTES, Verdict, look_at, require_consistent
from dicom_node.dimse.part10 import NotPart10Error, read_file_head
from dicom_node.dimse.status import CANNOT_UNDERSTAND, DATASET_MISMATCH, RefusedError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CT, UID = "1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.8.498.1234567"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
)  # fmt: skip


def ct(**values: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 192", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20260101", "120000"
    ds.SOPClassUID, ds.SOPInstanceUID = CT, UID
    ds.StudyDate, ds.Modality, ds.PatientName, ds.Rows = "20260101", "CT", "Doe^Jane", 512
    ds.PixelData = bytes(2000)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, syntax: str, undefined_length: bool = False) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    if undefined_length:
        for element in ds.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    ds["PixelData"].VR = "OW"
    write_dataset(buffer, ds)
    written: bytes = buffer.getvalue()
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflate.compress(written) + deflate.flush()
    return written


def verdict(data: bytes, syntax: str, uid: str = UID, sop_class: str = CT, total: int | None = -1) -> Verdict:
    found = look_at(data[:MAX_START_BYTES], syntax, sop_class, uid, len(data) if total == -1 else total)
    return found.verdict


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_an_ordinary_object_in_every_transfer_syntax(syntax: str) -> None:
    data = encoded(ct(), syntax)
    found = look_at(data, syntax, CT, UID, len(data))
    assert (found.verdict, found.sop_class_uid, found.sop_instance_uid) == (Verdict.CONSISTENT, CT, UID)
    assert verdict(data, syntax, uid=UID + "1") is Verdict.MISMATCH
    assert verdict(data, syntax, sop_class=CT + ".1") is Verdict.MISMATCH
    assert verdict(data, syntax, total=None) is Verdict.CONSISTENT


@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_what_odd_but_legal_senders_put_before_the_uids(syntax: str, undefined_length: bool) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "de", "RFC5646"
    nested = Dataset()
    nested.LanguageCodeSequence = Sequence([item, item])
    ds = ct(LanguageCodeSequence=Sequence([nested, item]))
    ds.add_new(0x00020000, "UL", 4)
    ds.add_new(0x00041200, "UL", 7)  # retired and misplaced groups
    ds.add_new(0x00050010, "LO", "SOME MAKER")
    ds.add_new(0x00051001, "OB", b"\1\2" * 700)
    ds.add_new(0x00080000, "UL", 400)
    ds.add_new(0x00080001, "UL", 2000)
    assert verdict(encoded(ds, syntax, undefined_length), syntax) is Verdict.CONSISTENT


def test_each_vr_encoding_under_the_other_is_let_pass_but_not_the_other_byte_order() -> None:
    assert verdict(encoded(ct(), IMPLICIT), EXPLICIT) is Verdict.CONSISTENT
    assert verdict(encoded(ct(), EXPLICIT), IMPLICIT) is Verdict.CONSISTENT
    assert verdict(encoded(ct(), BIG), EXPLICIT) is Verdict.NOT_A_DATASET
    assert verdict(encoded(ct(), BIG), IMPLICIT) is Verdict.NOT_A_DATASET
    assert verdict(encoded(ct(), EXPLICIT), BIG) is Verdict.NOT_A_DATASET
    assert verdict(encoded(ct(), EXPLICIT), DEFLATED) is Verdict.NOT_A_DATASET


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("size", [0, 8, 300, 5000, 200_000])
def test_noise_zeros_and_text_are_no_dataset(syntax: str, size: int) -> None:
    import random

    noise = random.Random(size).randbytes(size)
    for data in (noise, bytes(size), b"<html> " * (size // 7), b"\xff" * size, b" " * size):
        if syntax == DEFLATED and data and data != noise:
            deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data = deflate.compress(data) + deflate.flush()
        if size != 8 or syntax != DEFLATED:  # 8 bytes of noise may be the beginning of anything deflated
            assert verdict(data, syntax) is not Verdict.CONSISTENT
            if not (size == 8 and data in (bytes(8), b"\xff" * 8)):
                assert verdict(data, syntax) is Verdict.NOT_A_DATASET, data[:20]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_uids_that_are_absent_or_empty_are_not_judged_here(syntax: str) -> None:
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        ds = ct()
        del ds[keyword]
        assert verdict(encoded(ds, syntax), syntax) is Verdict.UNKNOWN
        assert verdict(encoded(ct(**{keyword: ""}), syntax), syntax) is Verdict.UNKNOWN
    without = ct()
    for tag in [tag for tag in without if int(tag.tag) < 0x00100000]:
        del without[tag.tag]
    assert verdict(encoded(without, syntax), syntax) is Verdict.UNKNOWN


def test_the_statuses_of_the_standard() -> None:
    data = encoded(ct(), EXPLICIT)
    require_consistent(data, EXPLICIT, CT, UID, len(data))
    require_consistent(data[:20], EXPLICIT, CT, UID, 20)  # cut off: stored, and quarantined by the index
    for broken, uid, status in ((b"", UID, CANNOT_UNDERSTAND), (b"x" * 50, UID, CANNOT_UNDERSTAND),
                                (data, "1.2.3", DATASET_MISMATCH)):  # fmt: skip
        with pytest.raises(RefusedError) as refused:
            require_consistent(broken, EXPLICIT, CT, uid, len(broken))
        assert refused.value.status == status
        assert UID not in refused.value.comment


@pytest.mark.parametrize("size", [10_000, 100_000_000])
def test_a_deflate_bomb_is_inflated_for_64_kib_at_most(size: int) -> None:
    import tracemalloc

    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    private = b"\x05\x00\x01\x10OB\0\0" + size.to_bytes(4, "little")
    bomb = deflate.compress(private) + b"".join(deflate.compress(bytes(10_000)) for _ in range(size // 10_000))
    bomb += deflate.flush()
    tracemalloc.start()
    found = verdict(bomb, DEFLATED)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert found is not Verdict.MISMATCH


def test_sequences_nested_without_end_take_no_stack_and_little_time() -> None:
    deep = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x06\x00SQ\0\0" \
        b"\xff\xff\xff\xff" * 4000  # fmt: skip
    before = time.process_time()
    assert verdict(deep, EXPLICIT) is Verdict.UNKNOWN
    assert time.process_time() - before < 0.5


@given(
    data=st.binary(max_size=300) | st.builds(lambda head, tail: head + tail, st.sampled_from(
        [b"\x08\0\x16\0UI", b"\x08\0\x16\0", b"\x08\0\x05\0CS\x02\0  ", b"\0\x08\0\x16UI", b"\xcb\x48"]), st.binary()),
    syntax=st.sampled_from([*TRANSFER_SYNTAXES, "1.2.3", ""]),
    total=st.none() | st.integers(0, 400),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_a_verdict(data: bytes, syntax: str, total: int | None) -> None:
    assert look_at(data, syntax, CT, UID, total).verdict in Verdict
    assert look_at(memoryview(bytearray(data)), syntax, CT, UID, total) == look_at(data, syntax, CT, UID, total)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    ds = ct()
    for keyword in draw(st.sets(st.sampled_from(["SpecificCharacterSet", "ImageType", "InstanceCreationDate"]))):
        del ds[keyword]
    if draw(st.booleans()):
        ds.add_new(0x00080000, "UL", draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        item = Dataset()
        item.CodeValue, item.CodeMeaning = draw(st.text("abc", max_size=16)), "x"
        ds.LanguageCodeSequence = Sequence([item] * draw(st.integers(0, 3)))
    if draw(st.booleans()):
        ds.add_new(0x00030010, "LO", "MAKER")
        ds.add_new(0x00031000, draw(st.sampled_from(["OB", "UN"])), draw(st.binary(max_size=100)))
    ds.SOPInstanceUID = "2.25." + str(draw(st.integers(1, 2**127)))
    return ds


@given(ds=datasets(), syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]), undefined=st.booleans(),
       data=st.data())  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_what_pydicom_writes_is_consistent_and_cut_off_never_a_mismatch(
    ds: Dataset, syntax: str, undefined: bool, data: st.DataObject
) -> None:
    written = encoded(ds, syntax, undefined)
    uid = str(ds.SOPInstanceUID)
    assert verdict(written, syntax, uid) is Verdict.CONSISTENT
    cut = written[: data.draw(st.integers(0, len(written)))]
    for total in (len(cut), len(written), None):
        assert verdict(cut, syntax, uid, total=total) is not Verdict.MISMATCH


def test_real_files_pass() -> None:
    """Every file of the wild is consistent with its own UIDs, but for those that contradict themselves."""
    verdicts: dict[str, Verdict] = {}
    for path in sorted(p for p in SHARED.rglob("*") if p.is_file()):
        try:
            head = read_file_head(path)
        except NotPart10Error:
            continue
        data = path.read_bytes()[head.dataset_offset :]
        verdicts[path.name] = verdict(data, head.transfer_syntax_uid, head.sop_instance_uid, head.sop_class_uid)
    if not verdicts:
        pytest.skip(f"no test data at {SHARED}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {name for name, v in verdicts.items() if v is Verdict.NOT_A_DATASET} == set()
        contradictory = {
            "chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "TC0231_sopinstanceuid_UI_as_LO.dcm", "0.dcm", "1.dcm",
            "csa_slice_norm.dcm",
        }  # fmt: skip
        assert {name for name, v in verdicts.items() if v is Verdict.MISMATCH} <= contradictory
    assert sum(v is Verdict.CONSISTENT for v in verdicts.values()) > 100


def test_it_costs_microseconds() -> None:
    data = encoded(ct(), EXPLICIT)
    fastest = min(_seconds_of_100(data) for _ in range(20))
    assert fastest / 100 < 100e-6  # about 10e-6 on a quiet machine


def _seconds_of_100(data: bytes) -> float:
    before = time.perf_counter()
    for _ in range(100):
        look_at(data, EXPLICIT, CT, UID, len(data))
    return time.perf_counter() - before
