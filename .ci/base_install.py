"""Uses the base install as its users do, without TensorFlow: refines a photograph and scores the result."""

import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CAMVID = REPOSITORY.parent / "shared/camvid/val"


def main() -> None:
    """Refines, scores, and prints what is installed."""
    for module in ("tensorflow", "keras", "matplotlib", "h5py"):
        assert importlib.util.find_spec(module) is None, f"{module} is installed; the base install does without it"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("images", "maps", "labels"):
            (folder / name).mkdir()
        image = photograph()
        labels = (image[..., 1] > np.median(image[..., 1])).astype(np.uint8)
        noisy = np.where(np.random.default_rng(0).random(labels.shape) < 0.15, 1 - labels, labels)
        Image.fromarray(image).save(folder / "images/street.png")
        Image.fromarray(labels).save(folder / "labels/street.png")
        Image.fromarray(noisy).save(folder / "maps/street.png")
        started = time.monotonic()
        run("refine.py", f"--input={folder}/images", f"--maps={folder}/maps", f"--output_dir={folder}/out")
        seconds = time.monotonic() - started
        print(f"{image.shape[1]}x{image.shape[0]} pixels: {seconds:.1f} s, start and compilation included")
        run("score.py", f"--predictions={folder}/out", f"--labels={folder}/labels")
    packages = sorted(distribution.name for distribution in importlib.metadata.distributions())
    print(f"{len(packages)} packages: {', '.join(packages)}")


def photograph() -> np.ndarray:
    """A street scene of CamVid where it is at hand; otherwise a made-up picture, uint8 [H, W, 3]."""
    for path in sorted(CAMVID.glob("*.png"))[:1]:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    rows, columns = np.mgrid[:360, :480]
    waves = [128 + 100 * np.sin(rows / a + columns / b) for a, b in ((40, 60), (25, 90), (70, 30))]
    return np.stack(waves, axis=-1).astype(np.uint8)


def run(command: str, *arguments: str) -> None:
    """Runs a command of tools/."""
    subprocess.run([sys.executable, str(REPOSITORY / "tools" / command), *arguments], check=True)


if __name__ == "__main__":
    main()
