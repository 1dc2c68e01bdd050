"""References from a document to other objects: the Hierarchical SOP Instance Reference macro (PS3.3 C.17.2.1)."""

from collections.abc import Iterable, Mapping, Sequence

from pydicom import Dataset


def evidence(sources: Mapping[str, Sequence[Dataset]], results: Sequence[Dataset] = ()) -> list[Dataset]:
    """Every input Instance of every role, then our own objects, by study and Series; each Instance once."""
    datasets = [dataset for items in sources.values() for dataset in items]
    return references(
        (
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
            str(dataset.SOPInstanceUID),
            str(dataset.SOPClassUID),
        )
        for dataset in [*datasets, *results]
    )


def references(instances: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """The macro's items for (study, Series, Instance, SOP Class) UIDs, in the order given."""
    tree: dict[str, dict[str, dict[str, str]]] = {}
    for study_uid, series_uid, instance_uid, class_uid in instances:
        tree.setdefault(study_uid, {}).setdefault(series_uid, {})[instance_uid] = class_uid
    studies = []
    for study_uid, by_series in tree.items():
        study = Dataset()
        study.ReferencedSeriesSequence = []
        for series_uid, by_instance in by_series.items():
            series = Dataset()
            series.ReferencedSOPSequence = []
            for instance_uid, class_uid in by_instance.items():
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
                series.ReferencedSOPSequence.append(item)
            series.SeriesInstanceUID = series_uid
            study.ReferencedSeriesSequence.append(series)
        study.StudyInstanceUID = study_uid
        studies.append(study)
    return studies
