"""Key Object Selection (PS3.3 A.35.4, PS3.16 TID 2010): the images of the study on which the answer can be seen."""

from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.encoding import content
from dicom_node.encoding.evidence import references
from dicom_node.encoding.header import disclaimer, new_object, series_description
from dicom_node.encoding.report import document_header_items
from dicom_node.encoding.reported import Reported


def key_objects(reported: Reported) -> Dataset | None:
    """The selection titled "Of Interest"; None if no image shows more than the others.

    It holds the largest slice of each finding and the images of which something is stated. No title says that images
    are to be rejected: archives hide what is.
    """
    chosen = [reported.images.slices[index] for index in reported.key_images]
    if not chosen:
        return None
    provenance, header = reported.provenance, reported.header
    dataset = new_object(
        str(KeyObjectSelectionDocumentStorage),
        "KO",
        header,
        provenance,
        role="kos",
        series_number=provenance.series_number("kos"),
        series_description=series_description(provenance),
        own_codes=False,
    )
    dataset.ReferencedPerformedProcedureStepSequence = []
    by_uid = {
        str(source.SOPInstanceUID): str(source.SeriesInstanceUID) for source in reported.sources[reported.findings.role]
    }
    dataset.CurrentRequestedProcedureEvidenceSequence = references(
        (
            provenance.study_instance_uid,
            by_uid[source.sop_instance_uid],
            source.sop_instance_uid,
            source.sop_class_uid,
        )
        for source in chosen
    )
    frames: dict[tuple[str, str], list[int]] = {}
    for source in chosen:
        found = frames.setdefault((source.sop_class_uid, source.sop_instance_uid), [])
        if source.frame_number is not None:
            found.append(source.frame_number)
    about = [text for text in (reported.findings.headline, disclaimer(provenance)) if text]
    items = [
        *document_header_items(provenance),
        content.text("key_object_description", reported.words(". ".join(about))),
        *(content.image(None, *uids, frames=sorted(found)) for uids, found in frames.items()),
    ]
    dataset.update(content.container("of_interest", items, template="2010", relationship=None, continuity="SEPARATE"))
    return dataset
