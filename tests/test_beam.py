"""Mistakes in options of Apache Beam are found before the work begins."""

import pytest

from deeplab_tf.beam import pipeline_options
from deeplab_tf.errors import UserError

pytest.importorskip("apache_beam")


@pytest.mark.parametrize("text", ["runner=DirectRunner,direct_num_workers=3", "--direct_num_workers=3"])
def test_options(text):
    assert pipeline_options(text).get_all_options()["direct_num_workers"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner=NoRunner", "Unexpected pipeline runner: NoRunner"),
        ("runner=no.such.Runner", "No module named 'no'"),
        ("runnr=DirectRunner", "Apache Beam has no option runnr"),
        ("direct_num_workers=many", "direct_num_workers: invalid int value: 'many'"),
        ("direct_running_mode=fast", "invalid choice: 'fast'"),
    ],
)
def test_mistakes(text, message, capsys):
    with pytest.raises(UserError, match=message) as raised:
        pipeline_options(text)
    assert f"--beam_pipeline_options={text}: " in str(raised.value)
    assert capsys.readouterr() == ("", "")


def test_options_of_other_runners_are_handed_on():
    pipeline_options("runner=FlinkRunner,parallelism=4")
