"""Measures the dense CRF against pydensecrf: in one process, in turns, on the same photographs and probabilities.

    python benchmarks/crf.py --images=../shared/camvid/val --labels=../shared/camvid/valannot

Every figure is the time of one call from arrays in memory to marginals, the building of the lattices included. "all"
lets every class send messages; "believed" leaves out the classes that no pixel believes in (the default of `DenseCRF`).
The probabilities are made from the label maps: noisy scores on every eighth pixel, interpolated, as a network of output
stride 8 gives them; the classes beyond those of the labels have noise only. Where other work shares the machine, the
least times are the ones to compare.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image
from absl import app, flags
from crf_inputs import choose, degraded, load

from deeplab_tf.crf import DenseCRF
from deeplab_tf.parallel import available_cores

# (width, height), classes: images of VOC, COCO and COCO-Stuff, and a Cityscapes frame; a volume (width, height, depth).
SIZES = {
    "voc": ((500, 375), 21),
    "coco": ((640, 480), 81),
    "coco_stuff": ((640, 480), 171),
    "cityscapes": ((2048, 1024), 19),
    "volume": ((128, 128, 64), 2),
}

_IMAGES = flags.DEFINE_string("images", None, "Folder of photographs (.png).", required=True)
_LABELS = flags.DEFINE_string("labels", None, "Folder of label maps of the same names.", required=True)
_IGNORE = flags.DEFINE_integer("ignore", 11, "The label of pixels without a class (CamVid: 11).")
_COUNT = flags.DEFINE_integer("count", 3, "Photographs to measure on.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Turns.", lower_bound=1)
_SIZES = flags.DEFINE_list("sizes", list(SIZES), f"Sizes to measure: {', '.join(SIZES)}.")
flags.register_validator("sizes", lambda names: set(names) <= SIZES.keys(), f"expected some of {', '.join(SIZES)}")


def load_volume(image_path: pathlib.Path, label_dir: pathlib.Path, size: tuple[int, int, int], ignore: int):
    """A grey volume uint8 [D, H, W] and probabilities of two classes: a window that wanders over a photograph."""
    width, height, depth = size
    image, _ = load(image_path, label_dir, (width + 2 * depth, height + depth), 2, ignore)
    labels = PIL.Image.open(label_dir / image_path.name).resize((width + 2 * depth, height + depth), PIL.Image.NEAREST)
    labels = (np.array(labels) < 2).astype(np.uint8)
    windows = [np.s_[z : z + height, 2 * z : 2 * z + width] for z in range(depth)]
    grey = np.stack([image[window].mean(-1).astype(np.uint8) for window in windows])
    return grey, np.stack([degraded(labels[window], 2, seed=z) for z, window in enumerate(windows)])


def compare(name: str, images: list, repeats: int) -> None:
    """Runs all the ways in turns and prints one line for each."""
    cores = available_cores()
    widths = {"bilateral_spatial_std": 20, "bilateral_color_std": 10, "spatial_std": 2} if name == "volume" else {}
    ways = {"pydensecrf": DenseCRF(**widths, backend="pydensecrf")}
    for threads in sorted({1, cores}):
        ways[f"numba, {threads} core{'s' * (threads > 1)}, all"] = DenseCRF(
            **widths, threads=threads, class_threshold=0
        )
        ways[f"numba, {threads} core{'s' * (threads > 1)}, believed"] = DenseCRF(**widths, threads=threads)
    seconds = {way: [] for way in ways}
    marginals = {}
    for way, crf in ways.items():  # the compilation, or its loading from the disk
        began = time.perf_counter()
        crf(*images[0])
        print(f"{name}: first call of {way}: {time.perf_counter() - began:.2f} s", flush=True)
    for _ in range(repeats):
        for image, probabilities in images:
            for way, crf in ways.items():
                began = time.perf_counter()
                marginals[way] = crf(image, probabilities)
                seconds[way].append(time.perf_counter() - began)
    for way, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["pydensecrf"], times, strict=True))
        same = (marginals[way].argmax(-1) == marginals["pydensecrf"].argmax(-1)).mean()
        difference = np.abs(marginals[way] - marginals["pydensecrf"]).mean()
        print(
            f"{name}: {way:24s} median {statistics.median(times):7.3f} s {ratio:5.2f}x as fast, "
            f"least {min(times):6.3f} s {min(seconds['pydensecrf']) / min(times):5.2f}x, "
            f"same labels {same:.4%}, mean difference {difference:.1e}",
            flush=True,
        )


_MEMORY_CODE = """
import re, sys
import numpy as np
from deeplab_tf.crf import DenseCRF
image, probabilities = np.load(sys.argv[2]), np.load(sys.argv[3])
crf = DenseCRF(backend=sys.argv[1], class_threshold=0)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
crf(image[:64, :64], probabilities[:64, :64])
before = peak()
crf(image, probabilities)
print((peak() - before) / 1024)
"""


def peak_memory(backend: str, image: np.ndarray, probabilities: np.ndarray) -> float:
    """Peak memory that one call adds to a process that has the arrays already, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/image.npy", f"{folder}/probabilities.npy"]
        np.save(paths[0], image)
        np.save(paths[1], probabilities)
        command = [sys.executable, "-c", _MEMORY_CODE, backend, *paths]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(_) -> None:
    """Measures every size."""
    labels = pathlib.Path(_LABELS.value)
    paths = choose(_IMAGES.value, _COUNT.value)
    for name in _SIZES.value:
        size, classes = SIZES[name]
        if name == "volume":
            images = [load_volume(path, labels, size, _IGNORE.value) for path in paths]
        else:
            images = [load(path, labels, size, classes, _IGNORE.value) for path in paths]
        print(f"{name}: {len(images)} of {'x'.join(map(str, size))}, {classes} classes, 10 iterations")
        compare(name, images, _REPEATS.value)
        for backend in ("pydensecrf", "numba"):
            print(f"{name}: {backend}: a call takes {peak_memory(backend, *images[0]):.0f} MB at its peak", flush=True)


if __name__ == "__main__":
    app.run(main)
