"""Draws one picture of the `shapes` data set: textured objects, some with thin parts, over a textured background."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from deeplab_tf.classes import IGNORE_LABEL

# Every object is a signed distance function of (x, y): negative inside, about one unit = the object's radius.


def _ball(x, y):
    return np.hypot(x, y) - 0.9


def _box(x, y):
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def _star(x, y):
    """Five thin points: the distance to the nearest edge of the pentagram."""
    angle = (np.arctan2(x, -y) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.abs(np.sin(angle))
    tip, notch = np.array([1.1, 0.0]), 0.42 * np.array([math.cos(math.pi / 5), math.sin(math.pi / 5)])
    normal = np.array([tip[1] - notch[1], notch[0] - tip[0]]) / np.linalg.norm(tip - notch)
    return -(normal[0] * (along - tip[0]) + normal[1] * (across - tip[1]))


def _ring(x, y):
    return np.abs(np.hypot(x, y) - 0.75) - 0.2


def _kite(x, y):
    """A rhombus with a thin waving tail."""
    sail = 0.7 * (np.abs(x) * 1.3 + np.abs(y + 0.35)) - 0.5
    tail = np.maximum(np.abs(x - 0.12 * np.sin(8 * y)) - 0.09, np.abs(y - 0.65) - 0.55)
    return np.minimum(sail, tail)


def _tree(x, y):
    """A triangle on a thin trunk."""
    crown = np.maximum(0.87 * np.abs(x) - 0.5 * (y + 1.0), y - 0.45)
    trunk = np.maximum(np.abs(x) - 0.13, np.abs(y - 0.7) - 0.35)
    return np.minimum(crown, trunk)


def _table(x, y):
    """A board on two thin legs."""
    board = np.maximum(np.abs(x) - 1.0, np.abs(y + 0.35) - 0.2)
    legs = np.maximum(np.abs(np.abs(x) - 0.8) - 0.09, np.abs(y - 0.35) - 0.55)
    return np.minimum(board, legs)


def _stripes(x, y, phase):
    return np.sin(9 * x + phase)


def _checks(x, y, phase):
    return np.sign(np.sin(8 * x + phase) * np.sin(8 * y + phase))


def _dots(x, y, phase):
    return np.where(np.sin(11 * x + phase) + np.sin(11 * y) > 0.7, 1.0, -0.4)


def _shading(x, y, phase):
    return np.clip(x * math.cos(phase) + y * math.sin(phase), -1, 1)


def _rings(x, y, phase):
    return np.sin(12 * np.hypot(x, y) + phase)


# By class index: outline, texture, hue (in turns), whether it stands upright.
_CLASSES: dict[int, tuple[Callable, Callable, float, bool]] = {
    1: (_ball, _shading, 0.00, False),
    2: (_box, _checks, 0.60, False),
    3: (_star, _shading, 0.15, False),
    4: (_ring, _stripes, 0.85, False),
    5: (_kite, _rings, 0.48, False),
    6: (_tree, _dots, 0.33, True),
    7: (_table, _stripes, 0.07, True),
}
_SHORTEST, _LONGEST = 96, 160


def draw(seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draws the picture that belongs to a seed.

    Returns:
        image uint8 [H, W, 3] and mask uint8 [H, W], with a border of 255 around every object, two pixels wide.
    """
    random = np.random.default_rng(seed)
    height, width = _LONGEST - random.integers(0, 32), random.integers(_SHORTEST, 132)
    if random.random() < 0.7:
        height, width = width, height
    image, mask = _background(random, height, width), np.zeros((height, width), np.uint8)
    for _ in range(random.integers(1, 6)):
        _draw_object(random, image, mask, int(random.integers(1, 1 + len(_CLASSES))))
    image += random.normal(0, 0.02, image.shape)
    return (image * 255).clip(0, 255).astype(np.uint8), _with_borders(mask)


def _draw_object(random: np.random.Generator, image: np.ndarray, mask: np.ndarray, index: int) -> None:
    """Draws an object of a class over what is there."""
    outline, texture, hue, upright = _CLASSES[index]
    height, width = mask.shape
    radius = random.uniform(0.16, 0.4) * min(height, width)
    center_y, center_x = random.uniform(0.1, 0.9) * height, random.uniform(0.1, 0.9) * width
    turn = random.uniform(-0.15, 0.15) if upright else random.uniform(-math.pi, math.pi)
    stretch = random.uniform(0.8, 1.25)
    rows = slice(max(0, int(center_y - 1.7 * radius)), int(center_y + 1.7 * radius) + 1)
    columns = slice(max(0, int(center_x - 1.7 * radius)), int(center_x + 1.7 * radius) + 1)
    y, x = np.mgrid[:height, :width][:, rows, columns] + 0.5
    y, x = (y - center_y) / radius, (x - center_x) / radius
    x, y = (x * math.cos(turn) + y * math.sin(turn)) * stretch, (y * math.cos(turn) - x * math.sin(turn)) / stretch
    distance = outline(x, y)
    pattern = texture(x, y, random.uniform(0, 2 * math.pi))[..., None]
    value = random.uniform(0.55, 0.9) * (1 + random.uniform(0.15, 0.35) * pattern)
    color = _rgb(hue + random.uniform(-0.04, 0.04), random.uniform(0.45, 0.95))
    coverage = np.clip(0.5 - distance * radius, 0, 1)[..., None]
    image[rows, columns] += coverage * (value * color - image[rows, columns])
    mask[rows, columns][coverage[..., 0] > 0.5] = index


def _background(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Clouds of two dull colours, with stripes in some: float [H, W, 3]."""
    clouds = sum(_noise(random, height, width, cells) / cells**0.5 for cells in (2, 5, 12, 40))
    if random.random() < 0.4:
        y, x = np.mgrid[:height, :width]
        angle = random.uniform(0, math.pi)
        clouds = clouds + 0.4 * np.sin((x * math.cos(angle) + y * math.sin(angle)) * random.uniform(0.2, 0.9))
    share = np.clip(0.5 + 0.6 * clouds, 0, 1)[..., None]
    first, second = (_rgb(random.random(), random.uniform(0, 0.3)) * random.uniform(0.2, 0.9) for _ in range(2))
    return share * first + (1 - share) * second


def _noise(random: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise in -1..1 with so many cells along a side."""
    coarse = Image.fromarray(random.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _rgb(hue: float, saturation: float) -> np.ndarray:
    """A colour of full brightness: float [3]."""
    pure = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return 1 - saturation * (1 - pure)


def _with_borders(mask: np.ndarray) -> np.ndarray:
    """Marks pixels at which a 3x3 neighbourhood holds two classes with 255, as VOC does."""
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    around = [padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    return np.where(np.min(around, 0) == np.max(around, 0), mask, IGNORE_LABEL).astype(np.uint8)
