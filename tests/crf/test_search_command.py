"""tools/search_crf.py as a user runs it, on a run whose network was never trained."""

import json

import keras
import pytest

from deeplab_tf import DeepLab, Segmenter, data
from deeplab_tf.crf import DenseCRF
from tests.helpers import run_command


@pytest.mark.slow
def test_search_command(data_dir, shapes_dir, tmp_path):
    keras.utils.set_random_seed(0)
    info = data.info("shapes", data_dir)
    model = DeepLab("resnet_tiny", "linear", info.num_classes, scales=(1.0,))
    Segmenter(model, info=info).save(tmp_path / "run")
    flags = ("--model_dir=run", "--limit=1", "--dataset=shapes", f"--data_dir={data_dir}")
    result = run_command("tools/search_crf.py", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "without CRF" in result.stdout and "written    crf.json" in result.stdout
    best = DenseCRF.load(tmp_path / "run/crf.json")
    assert json.loads((tmp_path / "run/crf.json").read_text())["iterations"] == 10
    assert (tmp_path / "run/crf_search.png").exists()
    assert (tmp_path / "run/crf_search.csv").read_text().count("coarse") == 4 * 8 * 4
    assert Segmenter.load(tmp_path / "run", crf=True).crf == best
