"""Prediction and evaluation by this code and by that of another checkout, in turn: images per second, and the ratio.

git worktree add ../before a40b266
python benchmarks/versions.py --before=../before --input=photos --limit=8             ResNet-101 ASPP-L
python benchmarks/versions.py --before=../before --input=photos --scales=0.5,0.75,1 --crf

Each side is a process of its own that waits for its turn, with a network of random weights: predict() writes masks and
overlays, evaluate() counts against labels of zeros. Both read the same photographs.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

from absl import app, flags

_BEFORE = flags.DEFINE_string("before", None, "The other checkout.", required=True)
_INPUT = flags.DEFINE_string("input", None, "A folder of photographs.", required=True)
_LIMIT = flags.DEFINE_integer("limit", 8, "Number of photographs.", lower_bound=1)
_BACKBONE = flags.DEFINE_string("backbone", "resnet101", "Of the network.")
_HEAD = flags.DEFINE_string("head", "aspp_l", "Of the network.")
_SCALES = flags.DEFINE_list("scales", ["1"], "Of its input.")
_CRF = flags.DEFINE_bool("crf", False, "With the dense CRF.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed turns of each side.", lower_bound=1)

# Runs under either code; reads the name of a piece of work from each line, and answers with its seconds.
_SIDE = """
import json, pathlib, sys, tempfile, time
import keras, numpy as np
from PIL import Image
from deeplab_tf import DeepLab, Segmenter, data
from deeplab_tf.crf import DenseCRF
from deeplab_tf.evaluation import evaluate
try:
    from deeplab_tf.inference import predict
except ImportError:
    from deeplab_tf.evaluation import predict

given = json.loads(sys.argv[1])
keras.utils.set_random_seed(0)
model = DeepLab(given["backbone"], given["head"], num_classes=21, scales=given["scales"])
crf, info = DenseCRF() if given["crf"] else None, data.info("voc2012")
try:
    segmenter = Segmenter(model, crf, info, fixed_weights=True)  # as Segmenter.load makes it
except TypeError:
    segmenter = Segmenter(model, crf, info)
paths = [pathlib.Path(path) for path in given["paths"]]
images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
examples = [{"image": image, "label": np.zeros(image.shape[:2], np.uint8)} for image in images]
works = {
    "predict": lambda: predict(segmenter, paths, tempfile.mkdtemp(dir=given["folder"])),
    "evaluate": lambda: evaluate(segmenter, examples),
}
for line in sys.stdin:
    started = time.perf_counter()
    works[line.strip()]()
    print("seconds", time.perf_counter() - started, flush=True)
"""


class Side:
    """The code of a checkout, in a process of its own.

    Args:
        checkout: folder with the package deeplab_tf.
        given: what to work on, for the script of a side.
    """

    def __init__(self, checkout: pathlib.Path, given: dict):
        environment = os.environ | {"PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SIDE, json.dumps(given)],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, work: str) -> float:
        """Does a piece of work, "predict" or "evaluate"."""
        print(work, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RuntimeError("a side ended; its error is above")

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def main(_) -> None:
    """Prints both rates and their ratio for prediction and evaluation."""
    import tempfile

    here = pathlib.Path(__file__).resolve().parents[1]
    suffixes = {".jpg", ".jpeg", ".png"}
    folder = pathlib.Path(_INPUT.value).expanduser().resolve()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)[: _LIMIT.value]
    given = {"backbone": _BACKBONE.value, "head": _HEAD.value, "scales": [float(scale) for scale in _SCALES.value]}
    with tempfile.TemporaryDirectory() as scratch:
        given |= {"crf": _CRF.value, "paths": [str(path) for path in paths], "folder": scratch}
        checkouts = {"before": pathlib.Path(_BEFORE.value).expanduser().resolve(), "this code": here}
        sides = {name: Side(checkout, given) for name, checkout in checkouts.items()}
        print(f"{len(paths)} images of {folder}, {_BACKBONE.value} {_HEAD.value}, scales {given['scales']}")
        for work in ("predict", "evaluate"):
            seconds = {name: [] for name in sides}
            for turn in range(_ROUNDS.value + 1):  # the first one traces and compiles
                for name, side in sides.items():
                    taken = side.seconds(work)
                    seconds[name] += [taken] if turn else []
            rates = {name: len(paths) / statistics.median(taken) for name, taken in seconds.items()}
            ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
            shown = ", ".join(f"{name} {rate:.2f} images/s" for name, rate in rates.items())
            print(f"{work:<9} {shown}, ratio {statistics.median(ratios):.2f}", flush=True)
        for side in sides.values():
            side.close()


if __name__ == "__main__":
    app.run(main)
