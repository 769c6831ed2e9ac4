"""Made the files of this folder, run once in a checkout of commit a40b266. See README.md; today's code cannot run it.

PYTHONPATH=<checkout of a40b266> python make.py <checkout of a40b266> <empty folder>
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
from PIL import Image

import deeplab_tf
from deeplab_tf import data
from deeplab_tf.data import catalogue
from deeplab_tf.evaluation import Segmenter

CHECKOUT, FOLDER = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
WEIGHT_FILES = (
    "start.weights.h5",
    "caffe.weights.h5",
    "caffe.keras",
    "torchvision.weights.h5",
    "torchvision.keras",
)


def coarse(model: deeplab_tf.DeepLab, seed: int) -> None:
    """Random powers of two, which pack well; the classifier's are large, so that labels differ from place to place."""
    rng = np.random.default_rng(seed)
    for weight in model.network.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        if kind == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape)
        elif kind == "moving_variance":
            value = rng.uniform(0.5, 2, weight.shape)
        elif kind == "gamma":
            value = rng.uniform(0.2, 0.6, weight.shape)
        else:
            value = rng.normal(0, 0.1, weight.shape)
        if weight.path.endswith("fc1/kernel"):
            value *= 4
        weight.assign(np.sign(value) * 2.0 ** np.clip(np.round(np.log2(np.abs(value) + 1e-9)), -6, None))


def command(name: str, *flags: str) -> None:
    subprocess.run([sys.executable, str(CHECKOUT / name), *flags], check=True)


def few(name: str, splits: dict[str, int]) -> None:
    known = catalogue.KNOWN[name]
    catalogue.KNOWN[name] = catalogue.DatasetInfo(
        known.name, known.class_names, known.palette, known.ignore_label, splits
    )


def main() -> None:
    os.chdir(FOLDER)
    few("shapes", {"train": 4, "val": 3})
    directory = data.prepare("shapes", "data")
    raw = pathlib.Path("/data/pets")
    if raw.is_dir():
        shutil.rmtree(raw)
    for kind in ("images", "masks"):
        (raw / kind).mkdir(parents=True)
    for i, example in enumerate(data.evaluation_pipeline(directory, "val").as_numpy_iterator()):
        Image.fromarray(example["image"][:70, :90]).save(raw / f"images/{i}.jpg")
        mask = Image.fromarray(example["label"][:70, :90] % 3, mode="P")
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
        mask.save(raw / f"masks/{i}.png")
    (raw / "names.txt").write_text("background\ncat\ndog\n")
    data.prepare("image_folder/pets", "data", raw, class_names=str(raw / "names.txt"), val_fraction=0.34)

    arguments = {"backbone": "resnet_tiny", "num_classes": 8, "scales": (1.0,)}
    start = deeplab_tf.DeepLab(head="linear", **arguments)
    coarse(start, seed=1)
    start.save_weights("start.weights.h5")

    command(
        "train.py",
        "--model_dir=run",
        "--data_dir=data",
        "--dataset=shapes",
        "--backbone=resnet_tiny",
        "--head=linear",
        "--scales=1",
        "--initial_weights=start.weights.h5",
        # Slots of momentum for one stage and the classifier only: a smaller checkpoint.
        "--freeze=conv1|bn_conv1|(res|bn)[345].*",
        "--crop_size=65",
        "--batch_size=2",
        "--max_steps=4",
        "--learning_rate=0.001",
        "--classifier_multiplier=1",
        "--steps_per_loop=1",
        "--checkpoint_every=2",
        "--eval_every=2",
        "--overlays=0",
    )
    run = pathlib.Path("run")
    finished = Segmenter.load(run)
    after = {weight.path.removeprefix("deeplab/"): weight.numpy() for weight in finished.model.trainable_weights}
    trained = {path.replace("/", "."): v for path, v in after.items() if path.startswith(("fc1", "res2", "bn2"))}
    # The run as it would lie there had it been stopped after two steps.
    for path in (run / "checkpoints").glob("ckpt-4*"):
        path.unlink()
    for path in (*run.glob("evaluation*"), run / "overlays", run / "train", run / "validation"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    state = 'model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n'
    (run / "checkpoints/checkpoint").write_text(state)

    command("tools/search_crf.py", "--model_dir=run", "--limit=1")
    (run / "crf_search.png").unlink()
    command("evaluate.py", "--model_dir=run", "--crf")
    segmenter = Segmenter.load(run, crf=True)
    command("export_saved_model.py", "--model_dir=run", "--export_dir=export", "--crf")

    example = next(data.evaluation_pipeline(directory, "val").as_numpy_iterator())
    image = example["image"][:97, :120]
    network = segmenter.without_crf(image)
    expected = {
        "image": image,
        "mask": example["label"][:97, :120],
        "scores": np.asarray(segmenter.model(image[None])),
        "probabilities_every_8": network.probabilities[::8, ::8].astype(np.float32),
        "labels": network.labels,
        "crf_labels": segmenter(image).labels,
        **{f"step_4.{name}": value for name, value in trained.items()},
    }
    segmenter.model.save_weights("caffe.weights.h5")
    segmenter.model.save("caffe.keras")
    other = deeplab_tf.DeepLab(head="linear", bottleneck="torchvision", preprocessing="keras", **arguments)
    coarse(other, seed=2)
    other.save("torchvision.keras")
    other.save_weights("torchvision.weights.h5")
    expected["torchvision_scores"] = np.asarray(other(image[None]))
    np.savez_compressed("expected.npz", **expected)
    with tarfile.open("files.tar.xz", "w:xz", preset=9) as archive:
        for name in ("data", "run", "export", *WEIGHT_FILES):
            archive.add(name, filter=_nobody)


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
