"""How fast the journal is indexed: `python tests/benchmarks/indexing.py [--objects N] [--folder DIR] [--profile]`.

A journal of CT slices (512 x 512, 0.5 MB each, about 110 elements of header with private blocks and code sequences) of
several studies and associations, a file store in the same folder and an embedded PostgreSQL with its usual durability.
Printed: objects/s by the clock, and objects per second of processor time of this process and of PostgreSQL. The page
cache is warm, as it is behind a receiver.
"""

import argparse
import cProfile
import json
import pstats
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

import dicom_node.indexing
from dicom_node.dimse.part10 import file_head
from dicom_node.embedded.postgres import EmbeddedPostgres
from storage.database import migrate, open_pool
from storage.files import FolderStore

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_START_NS = 1_700_000_000_000_000_000


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def ct_slice(study: int, series: int, number: int) -> Dataset:
    """A CT slice with a header as scanners write them; `number` counts slices."""
    ds = Dataset()
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]
    ds.InstanceCreationDate = ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260312"
    ds.InstanceCreationTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"1012{number % 60:02d}.375000"
    ds.StudyTime, ds.SOPClassUID, ds.SOPInstanceUID = "101012", CT, f"2.25.{study}{series:02d}{number:06d}"
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = "A12345", "CT", "MAKER"
    ds.InstitutionName, ds.InstitutionAddress, ds.ReferringPhysicianName = "Hospital", "Street 1", "Doctor^A"
    ds.StationName, ds.StudyDescription, ds.SeriesDescription = "CT01", "Abdomen^Liver_3phase", "art. Phase 1.5 I30f 3"
    ds.ProcedureCodeSequence = Sequence([_code("77477000", "Computed tomography")])
    ds.AnatomicRegionSequence = Sequence([_code("10200004", "Liver")])
    ds.PerformingPhysicianName, ds.OperatorsName, ds.ManufacturerModelName = "Doctor^B", "Operator^C", "Scanner 64"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, f"2.25.{study}99{number % 3}"
    ds.ReferencedImageSequence = Sequence([reference, reference])
    ds.SourceImageSequence = Sequence([reference])
    ds.IrradiationEventUID = f"2.25.{study}{series}7"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "19600101", "F"
    ds.PatientAge, ds.PatientWeight, ds.AdditionalPatientHistory = "065Y", 70, "none"
    ds.ContrastBolusAgent, ds.BodyPartExamined, ds.ScanOptions = "APPLIED", "ABDOMEN", "FAST"
    ds.SliceThickness, ds.KVP, ds.DataCollectionDiameter, ds.DeviceSerialNumber = 1.5, 120, 500, "12345"
    ds.SoftwareVersions, ds.ProtocolName, ds.ContrastBolusVolume = "SW 1", "Liver 3 phases", 90
    ds.ContrastBolusIngredientConcentration, ds.ReconstructionDiameter, ds.DistanceSourceToDetector = 370, 380, 1085
    ds.DistanceSourceToPatient, ds.GantryDetectorTilt, ds.TableHeight, ds.RotationDirection = 595, 0, 180, "CW"
    ds.ExposureTime, ds.XRayTubeCurrent, ds.Exposure, ds.FilterType, ds.GeneratorPower = 500, 210, 130, "FLAT", 46
    ds.FocalSpots, ds.DateOfLastCalibration, ds.TimeOfLastCalibration = [1.2], "20260312", "070000"
    ds.ConvolutionKernel, ds.PatientPosition, ds.ExposureModulationType = ["I30f", "3"], "FFS", "XYZ_EC"
    ds.EstimatedDoseSaving, ds.CTDIvol, ds.SingleCollimationWidth, ds.SpiralPitchFactor = 10.0, 9.1, 0.6, 0.6
    ds.TotalCollimationWidth, ds.TableSpeed, ds.TableFeedPerRotation = 38.4, 46.0, 23.0
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"2.25.{study}", f"2.25.{study}{series:02d}"
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", series, 2, number
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-190.0, -380.5, -1.5 * number], [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator, ds.SliceLocation = f"2.25.{study}5", "", -1.5 * number
    ds.ImageComments, ds.SamplesPerPixel, ds.PhotometricInterpretation = "", 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 512
    ds.PixelSpacing, ds.BitsAllocated, ds.BitsStored, ds.HighBit = [0.7421875, 0.7421875], 16, 12, 11
    ds.PixelRepresentation, ds.SmallestImagePixelValue, ds.LargestImagePixelValue = 0, 0, 2712
    ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope = [60, 60], [400, 400], -1024, 1
    ds.RescaleType, ds.WindowCenterWidthExplanation = "HU", ["WINDOW1", "WINDOW2"]
    ds.RequestingPhysician, ds.RequestedProcedureDescription = "Doctor^D", "CT liver"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepID = "20260312", "PPS1"
    ds.PerformedProcedureStepDescription = "CT liver 3 phases"
    for group, creator in ((0x0019, "MAKER CT VA0  COAD"), (0x0021, "MAKER MED"), (0x0029, "MAKER CSA HEADER")):
        block = ds.private_block(group, creator, create=True)
        for element in range(0x10, 0x18):
            block.add_new(element, "LO", f"private {element}")
    ds.private_block(0x0029, "MAKER CSA HEADER").add_new(0x20, "OB", bytes(900))
    ds.PixelData = number.to_bytes(4, "little") * (512 * 512 // 2)
    ds["PixelData"].VR = "OW"
    return ds


def write_journal(folder: Path, objects: int, studies: int = 2, series: int = 3) -> None:
    """The journal of `studies` associations at once, interleaved."""
    folder.mkdir(parents=True)
    for study in range(1, studies + 1):
        facts = {"association_id": f"{study:016x}", "receiver": "receive-1", "calling_ae_title": "CT01",
                 "called_ae_title": "LIVERNODE", "peer_host": "10.1.2.3", "opened_at_ns": _START_NS}  # fmt: skip
        (folder / f"{_START_NS + study}-{study:016x}.opened.json").write_text(json.dumps(facts))
    for index in range(objects):
        study = index % studies + 1
        number = index // studies
        ds = ct_slice(study, number * studies * series // objects + 1, number)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, ds)
        name = f"{_START_NS + 1000 + index}-{study:016x}-{number + 1:06d}.dcm"
        (folder / name).write_bytes(file_head(CT, ds.SOPInstanceUID, EXPLICIT) + buffer.getvalue())


def _server_cpu_s(server: EmbeddedPostgres) -> float:
    """Processor time of PostgreSQL's processes; those that ended meanwhile are in their parent's."""
    try:
        parent = psutil.Process(server.pid)  # type: ignore[attr-defined]
        times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    except (psutil.Error, AttributeError):
        return 0.0
    own = parent.cpu_times()
    return sum(t.user + t.system for t in times) + own.children_user + own.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: the temporary folder")
    parser.add_argument("--profile", action="store_true", help="where this process's time goes (its main thread)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="node-index-", dir=arguments.folder))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "postgres")
    try:
        server.start()
        migrate(server.url)
        write_journal(folder / "made", arguments.objects)
        with closing(open_pool(server.url)) as pool:
            for number in range(arguments.rounds):
                root = folder / f"round{number}"
                shutil.copytree(folder / "made", root / "incoming")
                with pool.connection() as connection:
                    connection.execute("TRUNCATE study, association, event CASCADE")
                store = FolderStore(root / "store")
                profile = cProfile.Profile() if arguments.profile else None
                wall, cpu, server_cpu = time.perf_counter(), time.process_time(), _server_cpu_s(server)
                if profile:
                    profile.enable()
                taken = (dicom_node.indexing._index if profile else dicom_node.indexing.index_incoming)(
                    root / "incoming", store, pool, limit=10 * arguments.objects
                )
                if profile:
                    profile.disable()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                server_cpu = _server_cpu_s(server) - server_cpu
                with pool.connection() as connection:
                    row = connection.execute("SELECT count(*) FROM instance WHERE NOT is_conflict").fetchone()
                assert row is not None
                assert row[0] == arguments.objects, f"{row[0]} of {arguments.objects} objects in the index"
                print(
                    f"{taken} entries: {arguments.objects / wall:.0f} objects/s, {arguments.objects / cpu:.0f} per s "
                    f"of processor here, {arguments.objects / server_cpu if server_cpu else 0:.0f} of PostgreSQL's",
                    flush=True,
                )
                if profile:
                    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)
                shutil.rmtree(root)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
