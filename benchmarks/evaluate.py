"""The evaluation, overlapped, against its parts run one after another: images per second, and each part's time.

python benchmarks/evaluate.py --model_dir=runs/camvid                 the network and the images of a run
python benchmarks/evaluate.py --model_dir=runs/camvid --nocrf

Both sides do the same work on the same images: network, interpolation, CRF, confusion matrix, trimap. They take turns,
so each round gives a ratio; printed are the median of the ratios and the medians of the rates.
"""

import collections
import contextlib
import time

import numpy as np
import tqdm
from absl import app, flags

from deeplab_tf import Segmenter, data
from deeplab_tf.evaluation import ConfusionMatrix, TrimapCurve, evaluate, trimap

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of a run.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "Where its prepared data set lies.")
_SPLIT = flags.DEFINE_string("split", "val", "Of the data set.")
_IMAGES = flags.DEFINE_integer("images", 8, "Number of images.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed turns of each side.", lower_bound=1)
_CRF = flags.DEFINE_bool("crf", True, "With the dense CRF.")


def one_after_another(segmenter: Segmenter, examples: list[dict], seconds: dict[str, float]) -> np.ndarray:
    """The confusion matrix after the last step; adds the time of each part to `seconds`."""

    @contextlib.contextmanager
    def timed(part: str):
        started = time.perf_counter()
        yield
        seconds[part] += time.perf_counter() - started

    ignored = segmenter.info.ignore_label
    curves = [TrimapCurve(segmenter.info.num_classes) for _ in range(2)]
    confusions = [ConfusionMatrix.empty(segmenter.info.num_classes) for _ in range(2)]
    for example in examples:
        image, label = example["image"], example["label"]
        with timed("network"):
            result = segmenter.without_crf(image)
        with timed("labels"):
            stages = [result.labels]
        if segmenter.crf:
            with timed("probabilities"):
                result.probabilities  # noqa: B018
            with timed("CRF"):
                stages.append(segmenter.refined(image, result).labels)
        with timed("trimap"):
            distance = trimap.boundary_distance(label)
        for curve, confusion, labels in zip(curves, confusions, stages, strict=False):
            with timed("confusion matrix"):
                confusion.add(label, labels, ignored)
            with timed("trimap"):
                curve.add(label, labels, distance, ignored)
    return confusions[len(stages) - 1].counts


def main(_) -> None:
    """Measures and prints."""
    segmenter = Segmenter.load(_MODEL_DIR.value, crf=_CRF.value)
    directory = data.prepared_directory(segmenter.info.name, _DATA_DIR.value)
    pipeline = data.evaluation_pipeline(directory, _SPLIT.value, limit=_IMAGES.value)
    examples = list(pipeline.as_numpy_iterator())

    parts = collections.defaultdict(float)
    rounds = {"one after another": [], "overlapped": []}
    for turn in tqdm.tqdm(range(_ROUNDS.value + 1), "round", leave=False):  # the first one warms up
        parts.clear()
        started = time.perf_counter()
        expected = one_after_another(segmenter, examples, parts)
        between = time.perf_counter()
        evaluation = evaluate(segmenter, examples, trimap_widths=trimap.WIDTHS)
        end = time.perf_counter()
        np.testing.assert_array_equal(evaluation.final.counts, expected)
        if turn:
            rounds["one after another"].append(between - started)
            rounds["overlapped"].append(end - between)

    count = len(examples)
    print(f"{count} images of {segmenter.info.name}, {segmenter.model.backbone}, medians of {_ROUNDS.value} rounds")
    print("one after another, last round, ms per image:")
    for part, seconds in parts.items():
        print(f"  {part:<18}{1000 * seconds / count:8.1f}")
    for side in ("one after another", "overlapped"):
        print(f"{side:<20}{count / np.median(rounds[side]):6.2f} images per second")
    ratios = np.divide(rounds["one after another"], rounds["overlapped"])
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    print(f"ratio               {middle:6.2f} (middle half of the rounds: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    app.run(main)
