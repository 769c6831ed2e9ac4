"""The gain of predict.py from doing several things at a time: photographs one by one against the same in a stream.

python benchmarks/predict.py --model_dir=runs/voc --input=photos --limit=20 [--crf] [--format=masks,overlays]

Both sides read the same images, segment them and write the same formats; they take turns. The ratio is that of the
medians.
"""

import pathlib
import shutil
import statistics
import tempfile
import time

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS

ROUNDS = 5


def main() -> None:
    """Prints images per second of both."""
    from deeplab_tf.counts import CRF, NETWORK
    from deeplab_tf.inference import Segmenter, prediction_files
    from deeplab_tf.inference.predicting import predict
    from deeplab_tf.pictures import find_images, read_photograph

    paths = find_images(FLAGS.input)[: FLAGS.limit]
    formats = FLAGS.format or ["masks", "overlays"]
    segmenter = Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())

    def one_after_another(folder: pathlib.Path) -> None:
        for path in paths:
            image = read_photograph(path)
            results = {NETWORK: segmenter.without_crf(image)}
            if segmenter.crf is not None:
                results[CRF] = segmenter.refined(image, results[NETWORK])
            prediction_files.write(folder, path.stem, image, results, formats, segmenter.info)

    sides = {
        "one after another": one_after_another,
        "stream": lambda folder: predict(segmenter, paths, folder, formats),
    }
    seconds = {name: [] for name in sides}
    for turn in range(ROUNDS + 1):
        for name, side in sides.items():
            folder = pathlib.Path(tempfile.mkdtemp())
            started = time.perf_counter()
            side(folder)
            if turn:  # the first one compiles
                seconds[name].append(time.perf_counter() - started)
            shutil.rmtree(folder)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<18} {len(paths) / median:6.2f} images/s")
    print(f"ratio              {medians['one after another'] / medians['stream']:6.2f}")


if __name__ == "__main__":
    flags.run(main, "benchmarks/predict.py", required=("model_dir", "input"), of_a_run=True)
