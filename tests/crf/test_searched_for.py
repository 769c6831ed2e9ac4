"""crf.json says which network it was searched for; another network gets a warning."""

import json

import numpy as np
import pytest

from deeplab_tf import Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.dense_crf import read_searched_for
from deeplab_tf.evaluation.crf_search import Samples


def test_another_network_gets_a_warning(segmenter, network, tmp_path, capsys):
    segmenter.save(tmp_path)
    crf = DenseCRF(bilateral_weight=5.0)
    crf.save(tmp_path / "crf.json", {"dataset": "shapes", **segmenter.settings})
    assert Segmenter.load(tmp_path, crf=True).crf == crf
    assert capsys.readouterr().err == ""
    other = network()
    other.network.weights[0].assign(other.network.weights[0] + 1)
    Segmenter(other, info=segmenter.info).save(tmp_path / "other")
    (tmp_path / "other/crf.json").write_text((tmp_path / "crf.json").read_text())
    assert Segmenter.load(tmp_path / "other", crf=True).crf == crf
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and "was searched for another network" in warning
    crf.save(tmp_path / "other/crf.json")  # of older versions, or by hand
    Segmenter.load(tmp_path / "other", crf=True)
    assert capsys.readouterr().err == "" and read_searched_for(tmp_path / "other/crf.json") == {}
    assert "searched_for" in json.loads((tmp_path / "crf.json").read_text())


def test_samples_are_computed_in_any_order(segmenter, make_examples):
    examples = make_examples([(40, 56), (33, 33), (50, 41)])
    samples = Samples(segmenter, examples)
    assert len(samples) == 3
    for index in (0, 2, 1, 1):
        image, probabilities, label = samples[index]
        np.testing.assert_array_equal(image, examples[index]["image"])
        np.testing.assert_array_equal(label, examples[index]["label"])
        np.testing.assert_array_equal(probabilities, segmenter(image).probabilities)
    with pytest.raises(IndexError):
        samples[3]
