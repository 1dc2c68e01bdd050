"""Every pipeline that this node can run. One literal table, importable without torch."""

from pipelines.pipeline import Pipeline, Role

#: What mre_qc reads, all of one acquisition. It answers from any of them and says which; see MRE_ANY_OF.
MRE_ROLES = (
    Role("magnitude", "MR elastography: magnitude images, one per slice and phase offset", False, True),
    Role("phase", "MR elastography: phase images, one per slice and phase offset", False, True),
    Role("wave", "MR elastography: wave images", False),
    Role("elastogram", "MR elastography: map of shear stiffness", False),
    Role("confidence", "MR elastography: map of the inversion's confidence", False),
    Role("colour", "MR elastography: elastogram in colours, with or without the confidence overlaid", False),
)
MRE_ANY_OF = (("magnitude",), ("phase",), ("wave",), ("elastogram",), ("colour",))

PIPELINES: dict[str, Pipeline] = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline(
            name="ct_lesion",
            version="0.1.0",
            title="AI CT liver lesions",
            modality="CT",
            roles=(
                Role("arterial", "CT of the liver in the arterial phase"),
                Role("portal_venous", "CT of the liver in the portal-venous phase"),
            ),
            bundles=("ct_liver", "ct_lesion", "ct_review"),
            queue="gpu",
            module="pipelines.ct_lesion",
        ),
        Pipeline(
            name="mre_qc",
            version="0.1.0",
            title="AI MR elastography quality",
            modality="MR",
            roles=MRE_ROLES,
            bundles=("mre_qc",),
            queue="gpu",
            module="pipelines.mre_qc",
            any_of=MRE_ANY_OF,
            objects=("sc",),  # a picture for the console: an exam to repeat has neither Segmentation nor map
            answers_per_slice=True,
        ),
    )
}
