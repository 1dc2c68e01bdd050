"""Results in Implicit VR Little Endian, for destinations that take nothing else: the same objects every time."""

from io import BytesIO
from pathlib import Path

from encoded_studies import ct_stack, liver_findings, provenance
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.delivery.transcoding import implicit_file
from dicom_node.encoding.results import encode_results


def test_every_element_survives(tmp_path: Path) -> None:
    sources = {role: ct_stack(role) for role in ("arterial", "portal_venous")}
    objects = encode_results(liver_findings(), sources, provenance())
    assert {item.kind for item in objects} >= {"seg", "sr"}
    for item in objects:
        file = tmp_path / f"{item.kind}.dcm"
        file.write_bytes(item.data)
        implicit = implicit_file(file)
        assert implicit == implicit_file(file)
        before, after = dcmread(file), dcmread(BytesIO(implicit))
        assert after.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert after.SOPInstanceUID == before.SOPInstanceUID
        for one, other in zip(before.iterall(), after.iterall(), strict=True):
            # Pixel Data is OW in Implicit VR (PS3.5 section A.1), whatever it was
            assert (one.tag, one.VR.replace("OB", "OW")) == (other.tag, other.VR)
            assert one.VR == "SQ" or one.value == other.value
