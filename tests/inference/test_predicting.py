"""What `predict` writes, read again and compared with the segmenter's own results."""

import json
import pathlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from deeplab_tf import Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError
from deeplab_tf.inference import prediction_files
from deeplab_tf.inference.predicting import predict
from deeplab_tf.inference.prediction_log import PredictionLog
from deeplab_tf.pictures import find_images, read_photograph
from tests.helpers import REPOSITORY

ALL = tuple(prediction_files.SUFFIXES)


@pytest.fixture
def photographs(photograph, tmp_path) -> list[pathlib.Path]:
    """Three images in two folders; two of the same name."""
    paths = [tmp_path / "photographs" / name for name in ("a/1.png", "a/2.png", "b/1.png")]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(40 + 8 * i, 60, i)).save(path)
    return paths


@pytest.fixture(scope="module")
def refining(segmenter) -> Segmenter:
    return Segmenter(segmenter.model, DenseCRF(iterations=2), segmenter.info)


def drawn(annotations, read, shape):
    labels = np.full(shape, 255, np.uint8)
    for annotation in annotations:
        labels[read.annToMask(annotation).astype(bool)] = annotation["category_id"]
    return labels


def test_every_format_holds_the_results_before_and_after_the_crf(refining, photographs, tmp_path):
    out = tmp_path / "out"
    made = predict(refining, photographs, out, ALL)
    assert (made.images, made.done_before, made.unreadable, made.stopped) == (3, 0, [], False)
    for suffix, segment in (("", refining.without_crf), ("_crf", refining)):
        read = COCO(str(out / f"coco{suffix}.json"))
        by_name = {image["file_name"]: image["id"] for image in read.dataset["images"]}
        for path in photographs:
            name = path.parent.name + "/" + path.stem
            result = segment(read_photograph(path))
            with Image.open(out / f"masks{suffix}" / f"{name}.png") as mask:
                np.testing.assert_array_equal(np.asarray(mask), result.labels)
            with np.load(out / f"probabilities{suffix}" / f"{name}.npz") as file:
                assert file["probabilities"].dtype == np.float16
                np.testing.assert_allclose(file["probabilities"], result.probabilities, atol=3e-4)
            annotations = read.loadAnns(read.getAnnIds(by_name[f"{name}.png"]))
            np.testing.assert_array_equal(drawn(annotations, read, result.labels.shape), result.labels)
            collection = json.loads((out / f"polygons{suffix}" / f"{name}.geojson").read_text())
            areas = np.zeros(refining.info.num_classes, int)
            for feature in collection["features"]:
                areas[feature["properties"]["label"]] += feature["properties"]["area"]
            np.testing.assert_array_equal(areas, np.bincount(result.labels.ravel(), minlength=len(areas)))
            assert Image.open(out / "overlays" / f"{name}.png").width >= 3 * 60
    assert not [path for path in out.rglob("*") if ".part" in path.name]


def test_the_probabilities_are_what_refine_takes(refining, photographs, tmp_path):
    images = photographs[:2]
    predict(refining, images, tmp_path, ["masks", "probabilities"])
    from deeplab_tf.crf import refine_many

    refined = refine_many(images[0].parent, tmp_path / "probabilities", tmp_path / "refined", refining.crf)
    assert refined.written == 2
    for path in images:
        masks = [np.asarray(Image.open(tmp_path / folder / path.name)) for folder in ("refined", "masks_crf")]
        assert (masks[0] == masks[1]).mean() > 0.99  # float16 on the way


def test_it_goes_on_where_it_was_stopped(refining, photographs, tmp_path, monkeypatch):
    """Stopped by an error at the second image; then only what is missing, changed or asked for in addition."""
    out = tmp_path / "out"
    write, seen = prediction_files.write, []

    def failing(*arguments):
        if seen:
            raise RuntimeError("the power went off")
        seen.append(arguments[1])
        return write(*arguments)

    monkeypatch.setattr(prediction_files, "write", failing)
    with pytest.raises(RuntimeError, match="power"):
        predict(refining, photographs, out, ["masks", "coco"])
    assert seen == ["a/1"] and not (out / "coco.json").exists()
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"name": "a/2", "torn')

    def again(segmenter=refining, formats=("masks", "coco")):
        seen.clear()
        made = predict(segmenter, photographs, out, formats)
        assert made.images == len(seen) and made.done_before == 3 - len(seen)
        return seen

    monkeypatch.setattr(prediction_files, "write", lambda *arguments: seen.append(arguments[1]) or write(*arguments))
    assert again() == ["a/2", "b/1"]
    assert len(COCO(str(out / "coco.json")).imgs) == 3
    assert again() == []
    assert again(formats=["masks"]) == []
    (out / "masks_crf" / "b" / "1.png").unlink()
    assert again() == ["b/1"]
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(photographs[1])
    assert again() == ["a/2"]
    assert Image.open(out / "masks" / "a" / "2.png").size == (30, 30)
    assert again(formats=["masks", "polygons"]) == ["a/1", "a/2", "b/1"]
    other_crf = Segmenter(refining.model, DenseCRF(iterations=3), refining.info)
    assert again(other_crf) == ["a/1", "a/2", "b/1"]


def test_names_tell_images_apart(segmenter, photograph, tmp_path):
    for name in ("1.png", "1.bmp", "1.png.bmp", "2.png"):
        Image.fromarray(photograph(20, 20)).save(tmp_path / name)
    inputs = find_images(str(tmp_path))
    made = predict(segmenter, [*inputs, inputs[0]], tmp_path / "out", ["masks"])
    assert made.images == 4
    assert {path.name for path in (tmp_path / "out/masks").iterdir()} == {
        "1.png.png",
        "1.bmp.png",
        "1.png.bmp.png",
        "2.png",
    }


@pytest.mark.parametrize(("formats", "message"), [(["masks", "mask"], "found mask, expected"), ([], "found none")])
def test_an_unknown_format_is_refused(segmenter, photographs, tmp_path, formats, message):
    with pytest.raises(UserError, match=message):
        predict(segmenter, photographs, tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.helpers import small_network
small_network().start()
import predict
from deeplab_tf.inference import Segmenter
from deeplab_tf.inference import prediction_files
write = prediction_files.write
def stopping(*arguments):
    prediction_files.write = write
    os.kill(os.getpid(), signal.SIGINT)
    return write(*arguments)
prediction_files.write = stopping
sys.argv = ["predict.py", *sys.argv[2:]]
predict.flags.run(predict.main, "predict.py")
"""


@pytest.mark.slow
def test_ctrl_c_ends_it_after_the_images_under_way(segmenter, photograph, tmp_path):
    """Its own process, which interrupts itself when it writes the first image; the next call does the rest."""
    for i in range(40):
        path = tmp_path / "photographs" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(32, 32, i)).save(path)
    segmenter.save(tmp_path / "run")
    arguments = [f"--model_dir={tmp_path / 'run'}", f"--input={path.parent}", f"--output_dir={tmp_path / 'out'}"]
    command = [sys.executable, "-c", STOPPED, str(REPOSITORY), *arguments, "--format=masks,coco"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr and "interrupted" in stopped.stderr
    masks = list((tmp_path / "out" / "masks").iterdir())
    assert 0 < len(masks) < 40 and f"segmented  {len(masks)} of 40 images" in stopped.stdout
    assert all(np.asarray(Image.open(mask)).shape == (32, 32) for mask in masks)
    assert not (tmp_path / "out" / "coco.json").exists()
    made = predict(Segmenter.load(tmp_path / "run"), find_images(str(path.parent)), tmp_path / "out", ["masks", "coco"])
    assert made.images == 40 - len(masks) and made.done_before == len(masks)


@pytest.mark.slow
def test_apache_beam_writes_the_same(refining, photographs, tmp_path):
    pytest.importorskip("apache_beam")
    refining.save(tmp_path / "run")
    loaded = Segmenter.load(tmp_path / "run", crf=refining.crf)
    photographs[1].write_bytes(b"no image")
    plain = predict(loaded, photographs, tmp_path / "plain", ALL)
    made = predict(loaded, photographs, tmp_path / "out", ALL, beam_pipeline_options="runner=DirectRunner")
    assert (made.images, made.done_before, made.unreadable) == (2, 0, plain.unreadable)
    assert len(made.unreadable) == 1

    def content(folder):
        # A ZIP file holds the time; of the record, the order of the lines is free.
        read = {".npz": lambda path: np.load(path)["probabilities"].tobytes()}
        read |= {".jsonl": lambda path: sorted(path.read_text().splitlines())}
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): read.get(path.suffix, pathlib.Path.read_bytes)(path) for path in files}

    assert content(tmp_path / "out") == content(tmp_path / "plain")
    again = predict(loaded, photographs, tmp_path / "out", ALL, beam_pipeline_options="runner=DirectRunner")
    assert (again.images, again.done_before) == (0, 2)
    with pytest.raises(UserError, match=r"expected one of Segmenter\.load"):
        predict(refining, photographs, tmp_path / "out", beam_pipeline_options="runner=DirectRunner")


def test_parts_of_the_record_are_taken_in(segmenter, photographs, tmp_path):
    """Those of workers whose starting process was killed; not those of another segmenter."""
    other = Segmenter(segmenter.model, DenseCRF(iterations=1), segmenter.info)
    for name, made_by in (("a/1", segmenter), ("a/2", other)):
        with PredictionLog(tmp_path, made_by, part=True) as part:
            part.add(name, photographs[0], {"masks"})
    with PredictionLog(tmp_path, segmenter) as log:
        assert log.is_done("a/1", photographs[0], {"masks"}) and not log.is_done("a/2", photographs[0], {"masks"})
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["predictions.jsonl"]


def test_a_record_is_of_one_way_to_compute_the_crf(segmenter, photographs, tmp_path):
    by_threshold = [Segmenter(segmenter.model, DenseCRF(class_threshold=least), segmenter.info) for least in (0, 0.5)]
    with PredictionLog(tmp_path, by_threshold[0]) as log:
        log.add("a", photographs[0], {"masks"})
    for made_by, is_known in zip(by_threshold, (True, False), strict=True):
        with PredictionLog(tmp_path, made_by) as log:
            assert log.is_done("a", photographs[0], {"masks"}) == is_known


def test_annotations_are_not_kept_in_memory(segmenter, photograph, tmp_path, monkeypatch):
    """40 images of 0.25 MB of annotations each: written, and taken up by a second call."""
    annotation = {"category_id": 0, "segmentation": {"size": [1, 1], "counts": "1" * 250_000}}
    monkeypatch.setattr(prediction_files, "write", lambda *of_image: {"coco": [dict(annotation)]})
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path in paths:
        Image.fromarray(photograph(20, 20)).save(path)
    predict(segmenter, paths[:2], tmp_path / "first", ["coco"])  # compiles
    for done_before in (0, 40):
        tracemalloc.start()
        try:
            made = predict(segmenter, paths, tmp_path / "out", ["coco"])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert made.done_before == done_before and peak < 5e6
    assert len(COCO(str(tmp_path / "out/coco.json")).anns) == 40
