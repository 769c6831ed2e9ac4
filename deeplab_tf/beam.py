"""Apache Beam, for work that is too large for one machine."""

import contextlib
import io
from typing import Any

from deeplab_tf.errors import UserError, extras_named


def pipeline_options(text: str) -> Any:
    """Options of a Beam pipeline.

    Args:
        text: as Beam's command line takes them, separated by commas: "runner=DirectRunner,direct_num_workers=4".

    Raises:
        MissingPackage: Apache Beam is not installed.
        UserError: it has no such runner, or the runner on this machine no such option.
    """
    with extras_named("--beam_pipeline_options"):
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
        from apache_beam.runners import create_runner

    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            options = PipelineOptions([f"--{option.lstrip('-')}" for option in text.split(",") if option])
            runner = options.view_as(StandardOptions).runner or "DirectRunner"
            everything = options.get_all_options(retain_unknown_options=True)
            unknown = sorted(everything.keys() - options.get_all_options().keys())
        create_runner(runner)
    except SystemExit:  # argparse has written its usage, and what is wrong in the last line
        line = usage.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UserError(f"--beam_pipeline_options={text}: {line}") from None
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"--beam_pipeline_options={text}: {error}") from error
    if unknown and runner == "DirectRunner":  # the others hand on to their servers what Beam does not know
        raise UserError(f"--beam_pipeline_options={text}: Apache Beam has no option {', '.join(unknown)}")
    return options
