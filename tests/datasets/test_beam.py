"""Conversion on Apache Beam, with its direct runner."""

import pathlib

import numpy as np
import pytest

from deeplab_tf import data
from deeplab_tf.errors import UserError

pytest.importorskip("apache_beam")
OPTIONS = "runner=DirectRunner"


@pytest.fixture
def camvid(raw, grid):
    """Seven and two pairs, one of them bad."""
    for split, count in (("train", 7), ("val", 2)):
        for n in range(count):
            raw.image(f"{split}/{n}.png", seed=n)
            raw.mask(f"{split}annot/{n}.png", np.roll(grid([0, 5, 11]), n, axis=1))
    raw.path("trainannot/3.png").write_bytes(b"no image")
    return raw


@pytest.mark.slow
def test_beam_writes_the_same_examples(camvid):
    plain = camvid.examples(camvid.prepare("camvid", on_error="skip"), "train+val")
    directory = camvid.prepare("camvid", on_error="skip", overwrite=True, beam_pipeline_options=OPTIONS)
    assert data.info("camvid", camvid.data_dir).splits == {"train": 6, "val": 2}
    on_beam = camvid.examples(directory, "train+val")
    assert sorted(on_beam) == sorted(plain)
    for name, example in plain.items():
        np.testing.assert_array_equal(on_beam[name]["image"], example["image"])
        np.testing.assert_array_equal(on_beam[name]["label"], example["label"])
    assert "trainannot/3.png: cannot be read as an image" in (pathlib.Path(directory) / "skipped.txt").read_text()
    assert not list(pathlib.Path(directory).glob("skipped-*"))


@pytest.mark.slow
def test_a_bad_file_stops_it(camvid):
    with pytest.raises(UserError, match="trainannot/3.png: cannot be read as an image"):
        camvid.prepare("camvid", beam_pipeline_options=OPTIONS)
    assert camvid.left_behind() == []
