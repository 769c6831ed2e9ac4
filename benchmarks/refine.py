"""The CRF on a folder as large data sets have it: seconds per image and core, through `refine_many`.

python benchmarks/refine.py --images=VOC2012/JPEGImages --count=200

Photographs are resized to 640x480, the size of most of COCO's; scores of 81 classes are made up at output stride 8
(patches of a few classes and noise), as small `.npy` files. Measured is everything: reading, interpolation, softmax,
CRF, writing. `--believed` classes have a probability above 0.01 somewhere in an image; the others send no messages.
"""

import pathlib
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

from deeplab_tf.crf import DenseCRF, MapReader, refine_many
from deeplab_tf.parallel import available_cores
from deeplab_tf.pictures import find_images

_IMAGES = flags.DEFINE_string("images", None, "A folder of photographs.", required=True)
_COUNT = flags.DEFINE_integer("count", 200, "Images.", lower_bound=1)
_CLASSES = flags.DEFINE_integer("classes", 81, "Classes of the scores.", lower_bound=2)
_BELIEVED = flags.DEFINE_list("believed", ["6", "81"], "Classes above 1% in an image, one number after the other.")

_WIDTH, _HEIGHT = 640, 480
_COCO_VALIDATION = 40_504  # images of COCO 2014


def main(_) -> None:
    """Makes the folders, refines them with one core and with all, and prints the time of an image."""
    sources, classes = find_images(_IMAGES.value), _CLASSES.value
    reader = MapReader(scores=True, align_corners=True)
    cores = available_cores()
    for believed in map(int, _BELIEVED.value):
        with tempfile.TemporaryDirectory() as folder:
            images, maps = make_folders(pathlib.Path(folder), sources, _COUNT.value, classes, believed)
            few = sorted(images.iterdir())[:2]
            refine_many(few, maps, f"{folder}/compiled", DenseCRF(), reader)
            for used in sorted({1, cores}):
                started = time.monotonic()
                refined = refine_many(images, maps, f"{folder}/{used}", DenseCRF(), reader, cores=used)
                seconds = time.monotonic() - started
                each = seconds / refined.written
                print(
                    f"{classes} classes, {believed} believed, {used} cores: {refined.written} images in "
                    f"{seconds:.1f} s, {each:.3f} s an image, {each * used:.3f} s an image and core; the "
                    f"{_COCO_VALIDATION} of COCO 2014: {each * _COCO_VALIDATION / 3600:.1f} hours"
                )


def make_folders(folder: pathlib.Path, sources: list[pathlib.Path], count: int, classes: int, believed: int):
    """Writes `count` images and their scores; returns the two folders."""
    images, maps = folder / "images", folder / "maps"
    images.mkdir(), maps.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        with Image.open(sources[i % len(sources)]) as image:
            image.convert("RGB").resize((_WIDTH, _HEIGHT)).save(images / f"{i:05}.jpg", quality=95)
        np.save(maps / f"{i:05}.npy", make_scores(rng, classes, believed))
    return images, maps


def make_scores(rng: np.random.Generator, classes: int, believed: int) -> np.ndarray:
    """Scores of patches of some classes, float16 [h, w, classes] at output stride 8."""
    height, width = (_HEIGHT - 1) // 8 + 1, (_WIDTH - 1) // 8 + 1
    chosen = rng.permutation(classes)[:believed]
    centres = rng.random((2 * believed, 2)) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows[..., None] - centres[:, 0], columns[..., None] - centres[:, 1])
    labels = chosen[distance.argmin(axis=-1) % believed]
    scores = np.full((height, width, classes), -12.0)
    scores[..., chosen] = rng.normal(0, 1, (height, width, believed))
    np.put_along_axis(scores, labels[..., None], 6.0, axis=-1)
    return scores.astype(np.float16)


if __name__ == "__main__":
    app.run(main)
