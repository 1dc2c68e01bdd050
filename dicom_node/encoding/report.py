"""The root result: an "Imaging Measurement Report" (PS3.16 TID 1500) in each of the forms that viewers read.

Comprehensive 3D, Comprehensive and Enhanced SR differ in what they would allow beyond what we write: all our graphics
are 2D, as viewers draw no others. So one content tree serves all three, and only class, UIDs and Series differ.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from dicom_node.encoding import content
from dicom_node.encoding.concepts import PRIVATE_SCHEME
from dicom_node.encoding.evidence import evidence, references
from dicom_node.encoding.groups import (
    algorithm_items,
    comments,
    measurement_groups,
    numbers,
    statements,
    tracking_items,
)
from dicom_node.encoding.header import disclaimer, new_object, plain, series_description, shortened
from dicom_node.encoding.image_library import image_library
from dicom_node.encoding.provenance import MANUFACTURER, MODEL_NAME, Provenance
from dicom_node.encoding.reported import Mark, Reported
from dicom_node.encoding.sources import SourceImages, source_images
from pipelines.findings import Evaluation, Measurement

#: kind -> SOP Class of a report in that form.
FORMS: Mapping[str, str] = MappingProxyType(
    {
        "sr": str(Comprehensive3DSRStorage),
        "sr_comprehensive": str(ComprehensiveSRStorage),
        "sr_enhanced": str(EnhancedSRStorage),
    }
)

#: kind -> name of the item in which the report refers to such an object of ours.
_SUPPORTING = MappingProxyType(
    {
        "seg": "source_of_measurement",
        "seg_labelmap": "source_of_measurement",
        "pm": "source_of_measurement",
        "kos": "key_images",
        "sc": "summary",
        "pdf": "summary",
    }
)

#: Other objects of the same answer: (kind of KINDS, Dataset).
Results = Sequence[tuple[str, Dataset]]


def reports(reported: Reported, results: Results, kinds: Sequence[str]) -> dict[str, Dataset]:
    """The report of an analysed study in the forms `kinds`, keys of FORMS.

    results : every other object of the answer that is wanted at the destination; the report leads to all of them.
    Raises InvalidResult where a stated volume is not that of the voxels, UnknownConcept where a code is missing.
    """
    seg = next((dataset for kind, dataset in results if kind == "seg"), None)
    shown = [reported.images.slices[index] for index in reported.key_images] + [reported.exam_mark.source]
    tree = _tree(
        measurement_groups(reported, seg),
        reported.sources,
        image_library(shown, reported.images),
        reported.header,
        reported.provenance,
        _supporting(results, led_to=seg if reported.findings.findings else None),
    )
    listed = evidence(reported.sources, [dataset for _, dataset in results])
    # what a report refers to is part of its content, so another report needs another UID
    role = " ".join(sorted(str(dataset.SOPInstanceUID) for _, dataset in results))
    return {
        kind: _document(
            tree,
            listed,
            reported.header,
            reported.provenance,
            kind=kind,
            role=f"{kind} {role}".strip(),
            description=series_description(reported.provenance, reported.findings.verdict),
        )
        for kind in kinds
    }


def refusal_reports(
    reason: str, sources: Mapping[str, Sequence[Dataset]], provenance: Provenance, kinds: Sequence[str]
) -> dict[str, Dataset]:
    """The report of a study that could not be analysed, with the reason in the Series Description and in the text.

    sources : what there is of the inputs, at least one Dataset; they need no geometry.
    """
    images, mark = refused_images(sources)
    header = images.header
    count = sum(len(datasets) for datasets in sources.values())
    words = [plain(text, header) for text in (f"Study not analysed: {reason}", disclaimer(provenance))]
    group = content.container(
        "measurement_group",
        [
            *tracking_items("Study not analysed", "Study not analysed", provenance),
            *algorithm_items(provenance),
            *numbers([Measurement("images_not_analysed", count, "{images}")], mark),
            *statements([Evaluation("analysis", "not_analysed")]),
            *comments(words),
        ],
        template="1501",
    )
    # an image that could not be analysed may lack what an Image Library states: there is none
    tree, listed = _tree([group], sources, None, header, provenance), evidence(sources)
    return {
        kind: _document(
            tree,
            listed,
            header,
            provenance,
            kind=kind,
            role="refusal" if kind == "sr" else f"refusal {kind}",
            description=f"NOT ANALYSED by {provenance.title}: {reason}",
        )
        for kind in kinds
    }


def refused_images(sources: Mapping[str, Sequence[Dataset]]) -> tuple[SourceImages, Mark | None]:
    """Images of the role with most of them; and the middle of the middle one, None if it has no pixels."""
    datasets = max(sources.values(), key=len)
    images = source_images([datasets[len(datasets) // 2]])
    source = images.slices[(len(images.slices) - 1) // 2]
    return images, Mark(source, (source.columns / 2, source.rows / 2)) if source.rows and source.columns else None


def document_header_items(provenance: Provenance) -> list[Dataset]:
    """Language and who observed: this node as a device (PS3.16 TID 1204, 1001, 1002, 1004)."""
    context: content.Relationship = "HAS OBS CONTEXT"
    return [
        content.code("language", "english", "HAS CONCEPT MOD"),
        content.code("observer_type", "device", context),
        content.uid_reference("observer_uid", provenance.device_uid, context),
        content.text("observer_name", provenance.node_id, context),
        content.text("observer_manufacturer", MANUFACTURER, context),
        content.text("observer_model", MODEL_NAME, context),
        content.text("observer_serial", provenance.node_id, context),
    ]


def add_document_attributes(dataset: Dataset, listed: Sequence[Dataset], provenance: Provenance) -> None:
    """SR Document Series and General modules (PS3.3 C.17.1, C.17.2) beyond what `new_object` sets.

    listed : what `evidence` gives.
    """
    dataset.CompletionFlag = "PARTIAL" if provenance.partial else "COMPLETE"
    if provenance.partial:
        dataset.CompletionFlagDescription = shortened(provenance.partial, 64)
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CurrentRequestedProcedureEvidenceSequence = [
        item for item in listed if item.StudyInstanceUID == provenance.study_instance_uid
    ]
    predecessor = provenance.predecessor_for(str(dataset.SOPClassUID))
    if predecessor is not None:
        dataset.PredecessorDocumentsSequence = references([predecessor])


def _tree(
    groups: Sequence[Dataset],
    sources: Mapping[str, Sequence[Dataset]],
    library: Dataset | None,
    header: Dataset,
    provenance: Provenance,
    supporting: Sequence[Dataset] = (),
) -> Dataset:
    """TID 1500, written once for all forms."""
    root = content.container(
        "imaging_measurement_report",
        [
            *document_header_items(provenance),
            _procedure(sources),
            *([library] if library is not None else []),
            content.container("imaging_measurements", groups),
            *([content.container("supporting_information", supporting)] if supporting else []),
        ],
        template="1500",
        relationship=None,
    )
    return content.frozen(root, header)


def _procedure(sources: Mapping[str, Sequence[Dataset]]) -> Dataset:
    """Procedure reported: CID 100 knows CT and MR; all else, and several modalities together, are "imaging".

    One item only: validators of IHE refuse a second.
    """
    modalities = {str(datasets[0].get("Modality") or "") for datasets in sources.values() if datasets}
    known = modalities.pop() if len(modalities) == 1 else ""
    return content.code(
        "procedure_reported", known if known in ("CT", "MR") else "imaging_procedure", "HAS CONCEPT MOD"
    )


def _supporting(results: Results, led_to: Dataset | None) -> list[Dataset]:
    """Items that lead to the objects of the answer, but for the one that groups of findings lead to."""
    items = []
    for kind, dataset in results:
        if kind in _SUPPORTING and dataset is not led_to:
            write = content.image if "Rows" in dataset else content.composite
            items.append(write(_SUPPORTING[kind], str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))
    return items


def _document(
    tree: Dataset,
    listed: Sequence[Dataset],
    header: Dataset,
    provenance: Provenance,
    *,
    kind: str,
    role: str,
    description: str,
) -> Dataset:
    dataset = new_object(
        FORMS[kind],
        "SR",
        header,
        provenance,
        role=role,
        series_number=provenance.report_series_number if kind == "sr" else provenance.series_number(kind),
        series_description=description,
        own_codes=PRIVATE_SCHEME.encode() in tree.get_item("ContentSequence").value,
    )
    add_document_attributes(dataset, listed, provenance)
    dataset.update(tree)
    return dataset
