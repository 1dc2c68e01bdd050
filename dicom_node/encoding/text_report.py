"""The answer as a flat Basic Text SR (PS3.16 TID 2000) that dictation systems read: no numbers, no graphics, one
TEXT per line, the headline first.
"""

from collections.abc import Iterable, Mapping, Sequence

from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage

from dicom_node.encoding import content
from dicom_node.encoding.evidence import evidence
from dicom_node.encoding.header import disclaimer, new_object, plain, series_description
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.report import Results, add_document_attributes, document_header_items, refused_images
from dicom_node.encoding.reported import Reported
from dicom_node.encoding.sources import SourceSlice
from dicom_node.encoding.wording import number_in_words, place_in_words, statement_in_words
from pipelines.findings import Evaluation, Measurement


def text_report(reported: Reported, results: Results) -> Dataset:
    """The Basic Text SR of an analysed study.

    results : the other objects of the answer that are wanted at the destination; they are listed as evidence.
    """
    role = " ".join(["sr_text", *sorted(str(dataset.SOPInstanceUID) for _, dataset in results)])
    findings, provenance = reported.findings, reported.provenance
    return _document(
        impressions=[findings.headline, disclaimer(provenance)],
        found=finding_lines(reported),
        conclusions=[*findings.warnings, *findings.remarks, _maker(provenance)],
        header=reported.header,
        listed=evidence(reported.sources, [dataset for _, dataset in results]),
        provenance=provenance,
        role=role,
        description=series_description(provenance, findings.verdict),
    )


def refusal_text_report(reason: str, sources: Mapping[str, Sequence[Dataset]], provenance: Provenance) -> Dataset:
    """The Basic Text SR of a study that could not be analysed."""
    images, _ = refused_images(sources)
    return _document(
        impressions=[f"Study not analysed: {reason}", disclaimer(provenance)],
        found=[],
        conclusions=[_maker(provenance)],
        header=images.header,
        listed=evidence(sources),
        provenance=provenance,
        role="refusal sr_text",
        description=f"NOT ANALYSED by {provenance.title}: {reason}",
    )


def finding_lines(reported: Reported) -> list[str]:
    """One line per finding, per image of which something is stated, and per number or statement of the exam."""
    findings, slices = reported.findings, reported.images.slices
    said = [
        _line(
            item.tracking_id,
            item.measurements,
            item.evaluations,
            item.concept,
            slices[reported.by_name[item.tracking_id].largest_slice],
        )
        for item in findings.findings
    ]
    said += [
        _line(item.tracking_id, item.measurements, item.evaluations, item.concept, slices[item.image])
        for item in findings.planar
    ]
    said += [
        _line(item.label, item.measurements, item.evaluations, None, slices[item.image], item.remark)
        for item in findings.images
    ]
    said += [number_in_words(item) for item in findings.measurements]
    return said + [statement_in_words(item) for item in findings.evaluations]


def _line(
    name: str,
    measurements: Iterable[Measurement],
    evaluations: Iterable[Evaluation],
    kind: str | None,
    source: SourceSlice,
    remark: str = "",
) -> str:
    """ "Lesion 1: Malignancy ...: Malignant; Long axis 23.1 mm; image 17"."""
    parts = [statement_in_words(item, kind) for item in evaluations]
    parts += [remark] if remark else []
    parts += [number_in_words(item) for item in measurements]
    parts += [place] if (place := place_in_words(source)) else []
    return f"{name}: {'; '.join(parts)}" if parts else name


def _maker(provenance: Provenance) -> str:
    return f"{provenance.title}: {provenance.pipeline} {provenance.version}, node {provenance.node_id}"


def _document(
    *,
    impressions: Iterable[str],
    found: Iterable[str],
    conclusions: Iterable[str],
    header: Dataset,
    listed: Sequence[Dataset],
    provenance: Provenance,
    role: str,
    description: str,
) -> Dataset:
    sections = [
        ("impressions_section", "impression", impressions),
        ("findings_section", "finding", found),
        ("conclusions_section", "conclusion", conclusions),
    ]
    items = document_header_items(provenance)
    for section, name, texts in sections:
        written = [content.text(name, plain(text, header)) for text in texts if text]
        if written:
            items.append(content.container(section, written))
    dataset = new_object(
        str(BasicTextSRStorage),
        "SR",
        header,
        provenance,
        role=role,
        series_number=provenance.series_number("sr_text"),
        series_description=description,
        own_codes=False,
    )
    add_document_attributes(dataset, listed, provenance)
    dataset.update(content.container("diagnostic_imaging_report", items, template="2000", relationship=None))
    return dataset
