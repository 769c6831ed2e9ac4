"""Apache Beam, for work that is too large for one machine."""

from typing import Any

from deeplab_tf.errors import extras_named


def pipeline_options(text: str) -> Any:
    """Options of a Beam pipeline.

    Args:
        text: as Beam's command line takes them, separated by commas: "runner=DirectRunner,direct_num_workers=4".

    Raises:
        MissingPackage: Apache Beam is not installed.
    """
    with extras_named("--beam_pipeline_options"):
        from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([f"--{option}" for option in text.split(",") if option])
