"""Measures the search for the parameters of the CRF against the same grid through pydensecrf, in one process.

    python benchmarks/crf_search.py --images=../shared/camvid/val --labels=../shared/camvid/valannot

The grid is the paper's coarse one, 128 sets of parameters. pydensecrf runs them one after the other on one core, as a
script that calls it would; ours uses all cores. Images and probabilities are those of benchmarks/crf.py, where every
class is believed in somewhere: with a trained network, which rules out most classes, the search is faster still
(`--believed` imitates it: so many classes keep their probabilities, the others get next to none).
"""

import itertools
import pathlib
import time

import numpy as np
import PIL.Image
from absl import app, flags
from crf_inputs import choose, load

from deeplab_tf import crf
from deeplab_tf.counts import mean_iou
from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.searching import COLOR_STDS, SPATIAL_STDS, WEIGHTS, class_counts
from deeplab_tf.parallel import available_cores

# (width, height), classes: a CamVid frame and a VOC image.
SIZES = {"camvid": ((480, 360), 11), "voc": ((500, 375), 21)}

_IMAGES = flags.DEFINE_string("images", None, "Folder of photographs (.png).", required=True)
_LABELS = flags.DEFINE_string("labels", None, "Folder of label maps of the same names.", required=True)
_IGNORE = flags.DEFINE_integer("ignore", 11, "The label of pixels without a class (CamVid: 11).")
_COUNT = flags.DEFINE_integer("count", 2, "Photographs to measure on.", lower_bound=1)
_SIZES = flags.DEFINE_list("sizes", list(SIZES), f"Sizes to measure: {', '.join(SIZES)}.")
_BELIEVED = flags.DEFINE_integer("believed", None, "Classes that are believed in; all by default.", lower_bound=1)
flags.register_validator("sizes", lambda names: set(names) <= SIZES.keys(), f"expected some of {', '.join(SIZES)}")


def by_pydensecrf(samples: list, classes: int) -> tuple[dict, list[float]]:
    """The mean IoU of every point of the grid, and the seconds for each sample."""
    grid = list(itertools.product(WEIGHTS, SPATIAL_STDS, COLOR_STDS))
    counts = {point: 0 for point in grid}
    seconds = []
    for image, probabilities, label in samples:
        began = time.perf_counter()
        for point in grid:
            found = DenseCRF(*point, backend="pydensecrf")(image, probabilities, return_labels=True)
            counts[point] += class_counts(label.astype(int), found.astype(int), classes, 255)
        seconds.append(time.perf_counter() - began)
    return {point: mean_iou(found) for point, found in counts.items()}, seconds


def by_search(samples: list, classes: int) -> tuple[dict, float]:
    """The same of `crf.search`, and its seconds for all samples."""
    began = time.perf_counter()
    result = crf.search(samples, classes, fine=False)
    seconds = time.perf_counter() - began
    points = {
        (t.crf.bilateral_weight, t.crf.bilateral_spatial_std, t.crf.bilateral_color_std): t for t in result.trials
    }
    return {point: trial.mean_iou for point, trial in points.items()}, seconds


def believed_only(probabilities: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """The probabilities with all but the `count` most frequent classes of the label at almost nothing."""
    order = np.argsort(-np.bincount(label[label != 255], minlength=probabilities.shape[-1]), kind="stable")
    kept = probabilities.copy()
    kept[..., order[count:]] *= 1e-4
    return kept / kept.sum(-1, keepdims=True)


def main(_) -> None:
    """Searches on every photograph in both ways, and prints how they compare."""
    labels = pathlib.Path(_LABELS.value)
    paths = choose(_IMAGES.value, _COUNT.value)
    for name in _SIZES.value:
        size, classes = SIZES[name]
        samples = []
        for path in paths:
            image, probabilities = load(path, labels, size, classes, _IGNORE.value)
            label = np.array(PIL.Image.open(labels / path.name).resize(size, PIL.Image.NEAREST))
            label[label == _IGNORE.value] = 255
            if _BELIEVED.value:
                probabilities = believed_only(probabilities, label, _BELIEVED.value)
            samples.append((image, probabilities, label))
        crf.search(samples[:1], classes, spatial_stds=(30,), color_stds=(3,), fine=False)  # the compilation
        ratios = []
        for sample in samples:
            ours, seconds = by_search([sample], classes)
            theirs, (their_seconds,) = by_pydensecrf([sample], classes)
            ratios.append(their_seconds / seconds)
            difference = max(abs(ours[point] - theirs[point]) for point in theirs)
            print(
                f"{name}: {len(theirs)} sets of parameters on one image of {size[0]}x{size[1]}, {classes} classes: "
                f"pydensecrf {their_seconds:.1f} s, search {seconds:.1f} s on {available_cores()} cores: "
                f"{ratios[-1]:.1f}x as fast; mean IoU differs by {100 * difference:.3f} points at most",
                flush=True,
            )
        print(f"{name}: {np.median(ratios):.1f}x as fast (median)")


if __name__ == "__main__":
    app.run(main)
