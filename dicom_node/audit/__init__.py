"""The audit trail: who did what with which patient's studies, by DICOM PS3.15 Annex A.5. Not the log."""

from dicom_node.audit.trail import Trail, open_trail

__all__ = ["Trail", "open_trail"]
