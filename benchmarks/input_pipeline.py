"""Images per second of decoding and augmentation, against a plain PyTorch loader on the same files.

python benchmarks/input_pipeline.py                                  photographs are simulated
python benchmarks/input_pipeline.py --photos='CamVid/train/*.png'    photographs of your own

All read VOC-like files (JPEGs of 375 x 500 pixels, grey PNG masks), draw a scale in [0.5, 1.5], scale, pad, crop 321 x
321 and mirror, and hand out batches of 10: ours from TFRecords, the others from single files with torch's DataLoader
and PIL, or OpenCV. Each runs pinned to the same cores in a process of its own; rounds alternate.
"""

import glob
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_string("photos", None, "Glob of photographs to make the files from; without it they are simulated.")
flags.DEFINE_integer("images", 200, "Number of files.")
flags.DEFINE_integer("cores", 1, "Cores that each loader may use.")
flags.DEFINE_integer("rounds", 3, "Measurements of each loader.")
flags.DEFINE_float("seconds", 8.0, "Duration of one measurement.")
flags.DEFINE_string("loader", None, "Internal: measure this loader in this process.")
flags.DEFINE_string("files", None, "Internal: folder of the files.")

HEIGHT, WIDTH, CROP, BATCH = 375, 500, 321, 10
MEAN = (123, 117, 104)


def make_files(folder: pathlib.Path) -> None:
    """Writes images/, masks/ and the same as a data set under tfds/."""
    from deeplab_tf import data

    photos = sorted(glob.glob(os.path.expanduser(FLAGS.photos))) if FLAGS.photos else []
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(FLAGS.images):
        photo = Image.open(photos[number % len(photos)]).convert("RGB") if photos else simulated_photo(generator)
        photo = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        photo.save(folder / "images" / f"{number:04d}.jpg", quality=90)
        cells = generator.integers(0, 21, (5, 7)).astype(np.uint8)
        Image.fromarray(cells).resize((WIDTH, HEIGHT), 0).save(folder / "masks" / f"{number:04d}.png")
    (folder / "classes.txt").write_text("\n".join(f"class {n}" for n in range(21)))
    data.prepare("image_folder", folder / "tfds", folder, class_names=str(folder / "classes.txt"), val_fraction=0.0)


def simulated_photo(generator: np.random.Generator) -> Image.Image:
    """Noise of all scales, the coarse ones strongest, as in photographs."""
    picture = np.zeros((HEIGHT, WIDTH, 3))
    for level in range(6):
        octave = generator.uniform(-1, 1, (2 + 3**level, 3 + 3**level, 3)) * 127 / 2**level
        octave = Image.fromarray((octave + 128).clip(0, 255).astype(np.uint8)).resize((WIDTH, HEIGHT), 3)
        picture += np.asarray(octave) - 128.0
    return Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8))


def ours(folder: pathlib.Path):
    """Batches of deeplab_tf."""
    from deeplab_tf import data

    directory = data.prepared_directory("image_folder", folder / "tfds")
    dataset = data.training_pipeline(directory, "train", batch_size=BATCH, crop_size=CROP)
    return ((batch["image"], batch["label"]) for batch in dataset.as_numpy_iterator())


def plain(folder: pathlib.Path, read, scale):
    """Batches of a plain loader: read, scale all, pad, crop, mirror; torch's DataLoader around it."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    names = sorted(path.stem for path in (folder / "images").iterdir())

    class Crops(Dataset):
        def __len__(self):
            return 1_000_000

        def __getitem__(self, number):
            name = names[number % len(names)]
            image, mask = read(str(folder / "images" / f"{name}.jpg"), str(folder / "masks" / f"{name}.png"))
            image, mask = scale(image, mask, random.uniform(0.5, 1.5))
            missing = [max(0, CROP - side) for side in mask.shape]
            if any(missing):
                padded = np.empty((mask.shape[0] + missing[0], mask.shape[1] + missing[1], 3), np.uint8)
                padded[:] = MEAN
                padded[: mask.shape[0], : mask.shape[1]] = image
                image, mask = padded, np.pad(mask, [(0, n) for n in missing], constant_values=255)
            y, x = random.randint(0, mask.shape[0] - CROP), random.randint(0, mask.shape[1] - CROP)
            image, mask = image[y : y + CROP, x : x + CROP], mask[y : y + CROP, x : x + CROP]
            if random.random() < 0.5:
                image, mask = image[:, ::-1], mask[:, ::-1]
            return torch.from_numpy(image.copy()), torch.from_numpy(mask.copy())

    torch.set_num_threads(1)
    return iter(DataLoader(Crops(), batch_size=BATCH, num_workers=FLAGS.cores))


def with_pil(folder: pathlib.Path):
    """Batches of the plain loader with PIL."""

    def read(image, mask):
        return Image.open(image).convert("RGB"), Image.open(mask)

    def scale(image, mask, factor):
        size = (round(image.width * factor), round(image.height * factor))
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR)), np.asarray(mask.resize(size, 0))

    return plain(folder, read, scale)


def with_opencv(folder: pathlib.Path):
    """Batches of the plain loader with OpenCV."""
    import cv2

    cv2.setNumThreads(0)

    def read(image, mask):
        return cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB), cv2.imread(mask, cv2.IMREAD_GRAYSCALE)

    def scale(image, mask, factor):
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        return cv2.resize(image, size), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)

    return plain(folder, read, scale)


LOADERS = {"deeplab_tf": ours, "torch + PIL": with_pil, "torch + OpenCV": with_opencv}


def measure(loader: str, folder: pathlib.Path) -> float:
    """Images per second after a warm-up."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: FLAGS.cores])
    batches = LOADERS[loader](folder)
    for _ in range(10):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < FLAGS.seconds:
        image, mask = next(batches)
        assert tuple(image.shape) == (BATCH, CROP, CROP, 3) and tuple(mask.shape) == (BATCH, CROP, CROP)
        count += BATCH
    return count / (time.perf_counter() - start)


def main(argv: list[str]) -> None:
    """Measures all loaders in turns and prints their speeds and the ratios."""
    del argv
    if FLAGS.loader:
        print(measure(FLAGS.loader, pathlib.Path(FLAGS.files)), flush=True)
        os._exit(0)  # without waiting for the loader's workers
    speeds: dict[str, list[float]] = {loader: [] for loader in LOADERS}
    with tempfile.TemporaryDirectory() as folder:
        make_files(pathlib.Path(folder))
        for turn in range(FLAGS.rounds):
            for loader, found in speeds.items():
                command = [sys.executable, __file__, f"--loader={loader}", f"--files={folder}"]
                command += [f"--cores={FLAGS.cores}", f"--seconds={FLAGS.seconds}"]
                environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
                result = subprocess.run(command, capture_output=True, text=True, env=environment)
                if result.returncode:
                    sys.exit(f"{loader} failed:\n{result.stderr}")
                found.append(float(result.stdout.split()[-1]))
                print(f"round {turn + 1}  {loader:16}{found[-1]:8.1f} images/s", flush=True)
    best = statistics.median(speeds["deeplab_tf"])
    print(f"\n{FLAGS.cores} core(s), crops of {CROP} x {CROP} from {HEIGHT} x {WIDTH}, medians of {FLAGS.rounds}:")
    for loader, found in speeds.items():
        speed = statistics.median(found)
        print(f"{loader:16}{speed:8.1f} images/s   deeplab_tf is {best / speed:.2f} times as fast")


if __name__ == "__main__":
    app.run(main)
