"""The evaluation, overlapped, against its parts run one after another: images per second, and each part's time.

python benchmarks/evaluate.py --model_dir=runs/camvid                 the network and the images of a run
python benchmarks/evaluate.py --model_dir=runs/camvid --no-crf

Both sides do the same work on the same images: network, interpolation, CRF, confusion matrix, trimap. They take turns,
so each round gives a ratio; printed are the median of the ratios and the medians of the rates.
"""

import argparse
import collections
import contextlib
import time

import numpy as np
import tqdm

from deeplab_tf import Segmenter, data
from deeplab_tf.evaluation import ConfusionMatrix, TrimapCurve, evaluate, trimap


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


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True, help="folder of a run")
    parser.add_argument("--data_dir", default="~/tensorflow_datasets", help="where its prepared data set lies")
    parser.add_argument("--split", default="val", help="of the data set")
    parser.add_argument("--images", type=int, default=8, help="number of images")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side")
    parser.add_argument("--crf", action=argparse.BooleanOptionalAction, default=True, help="with the dense CRF")
    arguments = parser.parse_args()

    segmenter = Segmenter.load(arguments.model_dir, crf=arguments.crf)
    directory = data.prepared_directory(segmenter.info.name, arguments.data_dir)
    pipeline = data.evaluation_pipeline(directory, arguments.split, limit=arguments.images)
    examples = list(pipeline.as_numpy_iterator())

    parts = collections.defaultdict(float)
    rounds = {"one after another": [], "overlapped": []}
    for turn in tqdm.tqdm(range(arguments.rounds + 1), "round", leave=False):  # the first one warms up
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
    print(f"{count} images of {segmenter.info.name}, {segmenter.model.backbone}, medians of {arguments.rounds} rounds")
    print("one after another, last round, ms per image:")
    for part, seconds in parts.items():
        print(f"  {part:<18}{1000 * seconds / count:8.1f}")
    for side in ("one after another", "overlapped"):
        print(f"{side:<20}{count / np.median(rounds[side]):6.2f} images per second")
    ratios = np.divide(rounds["one after another"], rounds["overlapped"])
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    print(f"ratio               {middle:6.2f} (middle half of the rounds: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
