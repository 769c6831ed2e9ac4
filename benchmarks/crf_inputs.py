"""Photographs, and probabilities such as a network might give for them, for the benchmarks of the CRF."""

import pathlib

import numpy as np
import PIL.Image


def choose(folder: str, count: int) -> list[pathlib.Path]:
    """Some of the photographs (.png) of a folder, spread over all."""
    paths = sorted(pathlib.Path(folder).glob("*.png"))
    return paths[:: max(1, len(paths) // count)][:count]


def degraded(labels: np.ndarray, classes: int, confidence: float = 5.0, seed: int = 0) -> np.ndarray:
    """Probabilities float32 [H, W, classes] that a network of output stride 8 might give for a label map."""
    coarse = labels[::8, ::8]
    scores = np.random.default_rng(seed).normal(0, 1.5, (*coarse.shape, classes)).astype(np.float32)
    known = coarse < classes
    scores[known, coarse[known]] += confidence
    for axis, size in enumerate(labels.shape):
        position = np.arange(size) / 8
        low = np.minimum(position.astype(int), scores.shape[axis] - 1)
        high = np.minimum(low + 1, scores.shape[axis] - 1)
        fraction = (position - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        scores = scores.take(low, axis) * (1 - fraction) + scores.take(high, axis) * fraction
    probabilities = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def load(image_path: pathlib.Path, label_dir: pathlib.Path, size: tuple[int, int], classes: int, ignore: int):
    """One photograph uint8 [H, W, 3] at the wanted size, and its probabilities."""
    image = PIL.Image.open(image_path).convert("RGB").resize(size, PIL.Image.BICUBIC)
    labels = np.array(PIL.Image.open(label_dir / image_path.name).resize(size, PIL.Image.NEAREST))
    labels[labels == ignore] = 255
    return np.asarray(image), degraded(labels, classes)
