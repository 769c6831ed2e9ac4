"""Reading what other networks have left on disk for the CRF: probabilities, scores, label maps, activation maps."""

import collections
import dataclasses
import io
import itertools
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from deeplab_tf import pickles
from deeplab_tf.classes import IGNORE_LABEL, voc_palette
from deeplab_tf.compiling import kernel
from deeplab_tf.crf.label_maps import label_probabilities
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import read_labels

SUFFIXES = (".npy", ".npz", ".png")


class Map(NamedTuple):
    """A map as the CRF takes it."""

    probabilities: np.ndarray  # float [H, W, K]
    classes: np.ndarray | None  # uint8 [K], the class of each channel; None: the channels are the classes
    palette: np.ndarray  # uint8 [N, 3], for masks


@dataclasses.dataclass(frozen=True)
class MapReader:
    """Reads the maps of one network.

    - `.npy` or `.npz` (one array, or one named "probabilities"), float [H, W, C] or [C, H, W]: probabilities at the
      size of the image; or, with `scores`, the scores before the softmax, of any size.
    - `.png`: labels, a class number a pixel, right with probability `confidence`.
    - `.npy` with a dict: class activation maps, as the methods of weak supervision write them: `keys` (the classes
      found in the image, without the background, from 0) and `high_res` or `cam` (float [K, h, w], 0 to 1), as IRN;
      or {class: [h, w]}, as PSA. The label of key k is k + 1. The background's map is the constant `cam_threshold`,
      and the largest map is a label (IRN); or it is (1 - the largest map)^`cam_power`, and all maps, divided by their
      sum, are probabilities (PSA).

    Attributes:
        confidence: of label maps and of thresholded activation maps; see `label_probabilities`.
        num_classes: C of label maps.
        ignore_label: of label maps.
        scores: whether arrays are scores.
        align_corners: whether the corner pixels of small maps sit on those of the image (Caffe, this project), or their
            borders on its borders (PyTorch's default).
        cam_threshold: of activation maps.
        cam_power: of activation maps.

    Raises:
        UserError: a number is out of its range, or threshold and power are both given.
    """

    confidence: float = 0.7
    num_classes: int | None = None
    ignore_label: int = IGNORE_LABEL
    scores: bool = False
    align_corners: bool = False
    cam_threshold: float | None = None
    cam_power: float | None = None

    def __post_init__(self):
        lowest = 1 / self.num_classes if self.num_classes else 0
        if not lowest < self.confidence < 1:
            among = f"1/{self.num_classes} (classes)" if self.num_classes else "0"
            raise UserError(f"--label_confidence={self.confidence}: expected between {among} and 1")
        if self.cam_threshold is not None and self.cam_power is not None:
            raise UserError("--cam_threshold and --cam_power: expected one of the two, for activation maps")
        if self.cam_threshold is not None and not 0 < self.cam_threshold < 1:
            raise UserError(f"--cam_threshold={self.cam_threshold}: expected between 0 and 1")
        if self.cam_power is not None and not 0 < self.cam_power <= 1000:
            raise UserError(f"--cam_power={self.cam_power}: expected more than 0, up to 1000")

    def read(self, path: pathlib.Path, size: tuple[int, int]) -> Map:
        """Reads a map for an image of `size` (height, width).

        Raises:
            UserError: it cannot be read, or is not such a map.
        """
        if path.suffix.lower() == ".png":
            labels, palette = read_labels(path)
            probabilities = label_probabilities(
                labels.astype(int), self.num_classes or 256, self.confidence, self.ignore_label
            )
            return Map(probabilities, None, voc_palette(256) if palette is None else np.reshape(palette, (-1, 3)))
        content = read_array(path)
        if isinstance(content, dict):
            return Map(*self._activations(content, size), voc_palette(256))
        if self.scores:
            content = softmax(resize(_channels_last(content, size), size, self.align_corners))
        elif content.ndim == 3 and content.shape[:2] != size and content.shape[1:] == size:
            content = content.transpose(1, 2, 0)
        return Map(content, None, voc_palette(256))

    def _activations(self, content: dict, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, float32 [H, W, K + 1], and classes, uint8 [K + 1], of activation maps."""
        if self.cam_threshold is None and self.cam_power is None:
            raise UserError("holds class activation maps; expected --cam_threshold or --cam_power for the background")
        keys, maps = _keys_and_maps(content)
        if keys.shape != maps.shape[:1] or maps.ndim != 3:
            raise UserError(f"holds keys of shape {keys.shape} and maps of shape {maps.shape}, expected [K], [K, h, w]")
        if keys.size and not 0 <= keys.min() <= keys.max() <= 254:
            raise UserError(f"holds the keys {keys.min()} to {keys.max()}, expected classes from 0 to 254")
        if maps.size and not (maps.min() >= 0 and maps.max() <= 1 + 1e-6):  # also where one is NaN
            raise UserError(f"holds activations from {maps.min():.4g} to {maps.max():.4g}, expected 0 to 1")
        classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
        if not keys.size:
            return np.ones((*size, 1), np.float32), classes
        maps = resize(maps.transpose(1, 2, 0), size, self.align_corners)
        if self.cam_power is None:
            background = np.full((*size, 1), self.cam_threshold, np.float32)
            labels = np.concatenate([background, maps], axis=-1).argmax(axis=-1)
            return label_probabilities(labels, len(classes), self.confidence, ignore_label=-1), classes
        background = (1 - np.minimum(maps.max(axis=-1, keepdims=True), 1)) ** self.cam_power
        scores = np.concatenate([background, maps], axis=-1)
        return scores / scores.sum(axis=-1, keepdims=True), classes


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores, over the last axis, float32."""
    if not np.isfinite(scores).all():
        raise UserError("the scores contain values that are not finite (NaN or infinity)")
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def resize(maps: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Bilinear interpolation, as PyTorch's `interpolate(mode="bilinear", align_corners=...)`.

    Args:
        maps: float [h, w, C].
        size: (H, W).
        align_corners: see `MapReader`.

    Returns:
        float32 [H, W, C].

    Raises:
        UserError: the maps are empty.
    """
    maps = np.ascontiguousarray(maps, np.float32)
    if not maps.size:
        raise UserError(f"holds maps of shape {list(maps.shape)}, expected at least one value")
    rows, columns = (_taps(*lengths, align_corners) for lengths in zip(maps.shape[:2], size, strict=True))
    resized = np.empty((*size, maps.shape[2]), np.float32)
    _interpolate(maps, rows, columns, resized)
    return resized


class _Taps(NamedTuple):
    """For each place along the longer side, the two places of the shorter one that it lies between, and how far on."""

    low: np.ndarray  # int64
    high: np.ndarray  # int64
    share: np.ndarray  # float32, of the higher one


def _taps(source: int, target: int, align_corners: bool) -> _Taps:
    if align_corners:
        position = np.arange(target) * ((source - 1) / max(1, target - 1))
    else:
        position = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    low = np.minimum(position.astype(np.int64), source - 1)
    return _Taps(low, np.minimum(low + 1, source - 1), (position - low).astype(np.float32))


@kernel
def _interpolate(maps, rows, columns, resized):
    """Fills `resized` [H, W, C] with values between those of `maps` [h, w, C]; rows and columns: `_Taps`."""
    for y in range(resized.shape[0]):
        top, bottom = rows.low[y], rows.high[y]
        for x in range(resized.shape[1]):
            left, right = columns.low[x], columns.high[x]
            for c in range(resized.shape[2]):
                above = maps[top, left, c] + columns.share[x] * (maps[top, right, c] - maps[top, left, c])
                below = maps[bottom, left, c]
                below += columns.share[x] * (maps[bottom, right, c] - below)
                resized[y, x, c] = above + rows.share[y] * (below - above)


def _channels_last(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The scores as [h, w, C], whichever of [h, w, C], [C, h, w], [1, h, w, C] and [1, C, h, w] they are.

    The two axes whose lengths are in the proportion of the image's are its height and width.

    Raises:
        UserError: they are none of these.
    """
    shape = scores.shape
    if scores.ndim == 4 and shape[0] == 1:
        scores = scores[0]
    if scores.ndim != 3 or not np.issubdtype(scores.dtype, np.floating) or not scores.size:
        raise UserError(f"holds {scores.dtype} {list(shape)}, expected scores: floats [h, w, C] or [C, h, w]")

    def misfit(height, width):
        """By how many of its pixels one side is too long for the other."""
        return abs(height * size[1] - width * size[0]) / max(size)

    last, first = misfit(*scores.shape[:2]), misfit(*scores.shape[1:])
    if min(last, first) > 2:
        raise UserError(
            f"holds scores {list(shape)}, which are not in the proportion of the image, {size[0]}x{size[1]}"
        )
    return scores if last <= first else scores.transpose(1, 2, 0)


def read_array(path: str | os.PathLike) -> np.ndarray | dict:
    """Reads a `.npy` or `.npz` file. No code in it is run, whoever made it.

    Returns:
        the array; or the dict, where a `.npy` holds one.

    Raises:
        UserError: it is not such a file, or holds objects other than a dict of arrays, numbers and PyTorch's tensors.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix.lower() != ".npz":
            with path.open("rb") as file:
                if _holds_objects(file):
                    return _read_dict(file, path)
            return np.load(path)
        with np.load(path) as content:
            names = list(content)
            name = names[0] if len(names) == 1 else "probabilities"
            if name not in names:
                found = _some(names) or "nothing"
                raise UserError(f"{path}: holds {found}; expected one array, or one named 'probabilities'")
            array = content[name]
    except UserError:
        raise
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise UserError(f"{path}: cannot be read as a NumPy file ({_line(error)})") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: cannot be read as a NumPy file ({name} is not an array)")
    return array


def _some(names: Iterable[Any]) -> str:
    """The first names of a file, which may hold many, and long ones."""
    return ", ".join(str(name)[:80] for name in itertools.islice(names, 6))


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _holds_objects(file: io.BufferedReader) -> bool:
    """Whether a `.npy` file holds Python objects; leaves it at the pickle if it does."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read_header(file)[2].hasobject


def _read_dict(file: io.BufferedReader, path: pathlib.Path) -> dict:
    try:
        content = _Unpickler(file).load()
        content = content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # pickle raises many kinds for damaged files
        raise UserError(f"{path}: cannot be read as a NumPy file ({_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected an array, or a dict of activation maps")
    return content


def _torch_storage(content: bytes) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError("holds tensors of PyTorch; pip install torch, or save them with .numpy()") from None
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _torch_tensor(*args: Any) -> np.ndarray:
    import torch

    return torch._utils._rebuild_tensor_v2(*args).detach().numpy()


class _Unpickler(pickles.DataUnpickler):
    known = pickles.ARRAYS | {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch.storage", "_load_from_bytes"): _torch_storage,
        ("torch._utils", "_rebuild_tensor_v2"): _torch_tensor,
    }
    expected = "arrays, numbers and tensors"


def _keys_and_maps(content: dict) -> tuple[np.ndarray, np.ndarray]:
    """Classes, integers [K], and activation maps, float [K, h, w], of a dict."""
    name = next((name for name in ("high_res", "cam") if name in content), None)
    if "keys" in content and name:
        return _numbers(content["keys"], "keys", int), _numbers(content[name], name, np.float32)
    if all(isinstance(key, int | np.integer) for key in content):
        maps = [_numbers(value, "activation maps", np.float32) for value in content.values()]
        if len({value.shape for value in maps}) > 1:
            raise UserError("holds activation maps of different shapes")
        shape = maps[0].shape if maps else (1, 1)
        return _numbers(list(content), "keys", int), np.array(maps, np.float32).reshape(-1, *shape)
    raise UserError(f"holds a dict with {_some(content)}; expected keys and high_res or cam, or a map for each class")


def _numbers(values: Any, name: str, dtype: type) -> np.ndarray:
    """An array of real numbers, whatever a dict holds of them."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"found {array.dtype}")
        return array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"holds {name} that are no real numbers ({_line(error)[:200]})") from error
