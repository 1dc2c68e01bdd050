"""Every pipeline that this node can run. One literal table, importable without torch."""

from pipelines.pipeline import Pipeline, Role

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
    )
}
