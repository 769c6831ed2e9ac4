"""The commands, run as a user runs them: prepare, train, evaluate, predict, export, serve."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf import data
from deeplab_tf.evaluation import ConfusionMatrix
from deeplab_tf.inference import Segmenter
from tests.helpers import REPOSITORY, run_command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_network")]  # processes of commands, or many trainings


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> pathlib.Path:
    """A folder in which train.py has made a run of a few steps on `shapes`, with its export."""
    folder = tmp_path_factory.mktemp("workplace")
    result = run_command(
        "train.py",
        f"--flagfile={REPOSITORY / 'demo.flags'}",
        "--data_dir=tfds",
        "--max_steps=20",
        "--eval_every=0",
        "--checkpoint_every=10",
        "--batch_size=4",
        "--eval_limit=3",
        "--nocrf",
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    (folder / "train_output.txt").write_text(result.stdout)
    return folder


@pytest.fixture(scope="module")
def segmenter(workplace) -> Segmenter:
    return Segmenter.load(workplace / "runs/demo")


@pytest.fixture(scope="module")
def photographs(workplace) -> pathlib.Path:
    """Some images of the validation split, as PNG files of several sizes, and one file that is no image."""
    directory = data.prepared_directory("shapes", workplace / "tfds")
    folder = workplace / "photographs"
    folder.mkdir()
    for i, example in enumerate(data.evaluation_pipeline(directory, "val", limit=3)):
        Image.fromarray(example["image"].numpy()).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    return folder


def test_training_ends_with_a_summary_and_its_files(workplace):
    output = (workplace / "train_output.txt").read_text()
    assert "mean IoU" in output and "trained    20 steps" in output and "exported   runs/demo/exported/1" in output
    run_dir = workplace / "runs/demo"
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["images"] == 100
    assert len(list((run_dir / "overlays").glob("*.png"))) == 4
    assert "--backbone=resnet_tiny" in (run_dir / "config.flags").read_text()


def test_evaluation_reads_the_flags_of_the_run_and_counts_right(workplace, segmenter):
    result = run_command("evaluate.py", "--model_dir=runs/demo", "--limit=7", cwd=workplace)
    assert result.returncode == 0, result.stderr
    written = json.loads((workplace / "runs/demo/evaluation_first7.json").read_text())
    confusion = ConfusionMatrix.empty(segmenter.info.num_classes)
    directory = data.prepared_directory("shapes", workplace / "tfds")
    for example in data.evaluation_pipeline(directory, "val", limit=7):
        confusion.add(example["label"].numpy(), segmenter(example["image"].numpy()).labels)
    assert written["images"] == 7
    assert written["network"]["confusion"] == confusion.counts.tolist()
    assert written["network"]["mean_iou"] == pytest.approx(confusion.mean_iou)
    assert f"{100 * confusion.mean_iou:.2f}" in result.stdout


def test_evaluation_reports_and_compares(workplace):
    """Two checkpoints of one run: a run is compared like with like, evaluation files as they are."""
    run_dir = workplace / "runs/demo"
    last = json.loads((run_dir / "evaluation.json").read_text())
    shutil.copytree(run_dir, workplace / "runs/my copy")
    flags = ["--limit=25", "--eval_mirror", "--report_dir=report", "--compare=runs/my copy"]
    result = run_command("evaluate.py", "--model_dir=runs/demo", *flags, cwd=workplace)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("mean IoU") and " to " in line]
    after = json.loads((run_dir / "evaluation_mirror_first25.json").read_text())["network"]["mean_iou"]
    assert line.split()[2:5] == [f"{100 * after:.2f}", f"{100 * after:.2f}", "+0.00"]  # both mirrored
    assert "runs/demo on shapes val" in (workplace / "report/index.html").read_text()
    assert json.loads((run_dir / "evaluation.json").read_text()) == last
    assert not list((workplace / "runs/my copy").glob("evaluation_mirror*"))

    files = ["--this=runs/demo/evaluation_mirror_first25.json", "--other=runs/my copy/evaluation.json"]
    result = run_command("tools/compare.py", *files, cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert "mirror        this: True; other: False" in result.stdout and "limit         this: 25" in result.stdout


def test_evaluation_on_other_classes_is_refused_before_any_work(workplace, refused):
    directory = pathlib.Path(data.prepared_directory("shapes", workplace / "tfds"))
    other = workplace / "other/shapes" / directory.name
    shutil.copytree(directory, other)
    metadata = json.loads((other / "metadata.json").read_text())
    metadata["class_names"][1] = "cat"
    (other / "metadata.json").write_text(json.dumps(metadata))
    for command in ("evaluate.py", "tools/search_crf.py"):
        assert "found 'cat' as class 1" in refused(command, "--model_dir=runs/demo", "--data_dir=other", cwd=workplace)


def test_prediction_writes_palette_masks_and_names_what_it_cannot_read(workplace, photographs, segmenter):
    result = run_command(
        "predict.py", "--model_dir=runs/demo", f"--input={photographs}", "--output_dir=out", cwd=workplace
    )
    assert result.returncode == 1
    assert "3 of 4 images" in result.stdout
    assert "broken.jpg: cannot be read as an image" in result.stderr and "Traceback" not in result.stderr
    for i in range(3):
        image = np.asarray(Image.open(photographs / f"{i}.png"))
        with Image.open(workplace / f"out/masks/{i}.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), segmenter(image).labels)
            palette = np.array(mask.getpalette()[: 3 * segmenter.info.num_classes]).reshape(-1, 3)
            np.testing.assert_array_equal(palette, segmenter.info.palette)
        assert Image.open(workplace / f"out/overlays/{i}.png").width > 2 * image.shape[1]


# A process without this package and without Keras: what TF Serving has.
SERVE = """
import sys
sys.modules["keras"] = sys.modules["deeplab_tf"] = None
import numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1])
paths = sys.argv[3:]
images = [tf.io.decode_png(tf.io.read_file(path), channels=3) for path in paths]
arrays = {}
for i, image in enumerate(images):
    for name, value in served.signatures["serving_default"](images=image[tf.newaxis]).items():
        arrays[f"{name}_{i}"] = value[0].numpy()
batch = served.signatures["serve_bytes"](image_bytes=tf.stack([tf.io.read_file(path) for path in paths]))
arrays |= {f"bytes_{name}": value.numpy() for name, value in batch.items() if name != "mask_png_bytes"}
arrays |= {f"png_{i}": tf.io.decode_png(png)[..., 0].numpy() for i, png in enumerate(batch["mask_png_bytes"])}
np.savez(sys.argv[2], **arrays)
"""


def test_the_export_gives_the_labels_of_the_evaluation(workplace, photographs, segmenter):
    result = run_command(
        "export_saved_model.py", "--model_dir=runs/demo", "--export_dir=runs/demo/exported", cwd=workplace
    )
    assert result.returncode == 0, result.stderr
    version = workplace / "runs/demo/exported/2"  # train.py wrote version 1
    classes = json.loads((version / "assets.extra/classes.json").read_text())
    assert classes["class_names"] == list(segmenter.info.class_names)
    np.testing.assert_array_equal(classes["palette"], segmenter.info.palette)

    paths = [photographs / f"{i}.png" for i in range(3)]
    command = [sys.executable, "-c", SERVE, version, workplace / "served.npz", *paths]
    subprocess.run([str(part) for part in command], check=True, cwd=workplace, timeout=300)
    served = np.load(workplace / "served.npz")
    assert len({tuple(size) for size in served["bytes_sizes"]}) > 1  # several sizes in one batch
    # The same graph, its weights as constants: other sums. Scores of about 100, which have float32 steps of 1e-5, come
    # out of twenty layers up to 1e-3 apart; a probability changes by a quarter of that.
    tolerance = 2.5e-4
    for i, path in enumerate(paths):
        expected = segmenter(np.asarray(Image.open(path)))
        height, width = expected.labels.shape
        np.testing.assert_array_equal(served[f"labels_{i}"], expected.labels)
        np.testing.assert_allclose(served[f"probabilities_{i}"], expected.probabilities, atol=tolerance)
        np.testing.assert_array_equal(served[f"png_{i}"], expected.labels)
        np.testing.assert_array_equal(served["bytes_sizes"][i], (height, width))
        np.testing.assert_array_equal(served["bytes_labels"][i, :height, :width], expected.labels)
        assert (served["bytes_labels"][i, height:] == 255).all() and (served["bytes_labels"][i, :, width:] == 255).all()
        probabilities = served["bytes_probabilities"][i, :height, :width]
        np.testing.assert_allclose(probabilities, expected.probabilities, atol=tolerance)


def test_saved_model_cli_runs_the_export(workplace, photographs, segmenter):
    image = np.asarray(Image.open(photographs / "0.png"))
    np.save(workplace / "photograph.npy", image[np.newaxis])
    command = [pathlib.Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", "runs/demo/exported/1"]
    command += ["--tag_set", "serve", "--signature_def", "serving_default", "--inputs", "images=photograph.npy"]
    subprocess.run([*command, "--outdir", "cli"], check=True, cwd=workplace, timeout=300, capture_output=True)
    np.testing.assert_array_equal(np.load(workplace / "cli/labels.npy")[0], segmenter(image).labels)


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("train.py", [], "--model_dir is missing"),
        ("train.py", ["--model_dir=x", "--dataset=nothing"], "nothing"),
        ("train.py", ["--model_dir=x", "--precision=bfloat16"], "expected one of float32, mixed_"),
        (
            "train.py",
            ["--model_dir=x", "--data_dir=tfds", "--head=linear", "--backbone=vgg16"],
            "--head=linear: expected",
        ),
        (
            "train.py",
            [f"--flagfile={REPOSITORY / 'demo.flags'}", "--data_dir=tfds", "--max_steps=30", "--batch_size=4"],
            "holds a run with other flags: --max_steps=30 (there: 20); give that run's flags to resume it",
        ),
        ("evaluate.py", ["--model_dir=nowhere"], "nowhere holds no trained model"),
        ("evaluate.py", ["--model_dir=runs/demo", "--eval_scales=1,big"], "'1,big', expected numbers"),
        (
            "evaluate.py",
            ["--model_dir=runs/demo", "--submission_dir=x"],
            "shapes; submissions can be written for voc2012",
        ),
        ("evaluate.py", ["--model_dir=runs/demo", "--tile_size=99", "--tile_overlap=90"], "tile_overlap=90"),
        ("predict.py", ["--model_dir=runs/demo", "--input=no*.jpg"], "--input=no*.jpg: found no image there"),
        ("export_saved_model.py", ["--model_dir=runs/demo"], "--export_dir is missing"),
        (
            "export_saved_model.py",
            ["--model_dir=runs/demo", "--export_dir=x", "--formats=pickle"],
            "--formats=pickle: ",
        ),
        (
            "export_saved_model.py",
            ["--model_dir=runs/demo", "--export_dir=x", "--outputs=scores"],
            "one or more of labels",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_1(workplace, refused, command, flags, message):
    assert message in refused(command, *flags, cwd=workplace)
    assert not tf.io.gfile.exists(str(workplace / "x" / "checkpoints"))
