"""The fully connected CRF of the paper (Sec. 3.3), for any network's probabilities."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from deeplab_tf.crf.check import check_image, check_labels, check_probabilities
from deeplab_tf.crf.lattice import check_reach
from deeplab_tf.errors import UserError
from deeplab_tf.files import write_json
from deeplab_tf.parallel import available_cores

_BACKENDS = ("numba", "tensorflow", "pydensecrf")
_PARAMETERS = (
    "bilateral_weight",
    "bilateral_spatial_std",
    "bilateral_color_std",
    "spatial_weight",
    "spatial_std",
    "iterations",
)


class Iteration(NamedTuple):
    """One mean-field iteration, as Fig. 5 of the paper shows it."""

    scores: np.ndarray  # float32 [H, W, C], before the softmax: log P(x) plus the messages
    beliefs: np.ndarray  # float32 [H, W, C], after the softmax


@dataclasses.dataclass(frozen=True)
class DenseCRF:
    """Sharpens a segmentation with a fully connected CRF (Sec. 3.3, Krähenbühl and Koltun 2011).

    It approximately minimises, by mean field,

        E(x) = sum_i -log P(x_i) + sum_(i<j) [x_i != x_j] (w1 k1(i, j) + w2 k2(i, j))
        k1(i, j) = exp(-|p_i - p_j|^2 / 2 sigma_alpha^2 - |I_i - I_j|^2 / 2 sigma_beta^2)
        k2(i, j) = exp(-|p_i - p_j|^2 / 2 sigma_gamma^2)

    where p are positions and I RGB colours. As in pydensecrf, both kernels are normalised symmetrically (k(i, j) is
    divided by the square root of sum_j k(i, j) times that of j), their Gaussians are filtered on a permutohedral
    lattice, probabilities count as at least 1e-5, and a pixel's message to itself is not left out.

    The object holds parameters only: it may be called from several threads at the same time.

    Args:
        bilateral_weight: w1, the weight of the kernel over positions and colours.
        bilateral_spatial_std: sigma_alpha, in pixels.
        bilateral_color_std: sigma_beta, in RGB units of 0..255.
        spatial_weight: w2, the weight of the kernel over positions.
        spatial_std: sigma_gamma, in pixels.
        iterations: mean-field iterations, 10 in the paper.
        backend: "numba" (compiled, all cores), "tensorflow" (TensorFlow operations, also on a GPU and in a
            SavedModel) or "pydensecrf" (the reference, if installed).
        class_threshold: classes whose probability stays below this everywhere send no messages ("numba" only): no
            pixel will take such a label, and the time goes with the classes that are left. 0 filters every class.
        threads: the cores to use at most ("numba" only); all by default.

    Raises:
        UserError: for parameters out of range.

    Example:
        >>> crf = DenseCRF(bilateral_weight=4, bilateral_spatial_std=67, bilateral_color_std=3)
        >>> labels = crf(image, probabilities, return_labels=True)
    """

    bilateral_weight: float = 4.0
    bilateral_spatial_std: float = 67.0
    bilateral_color_std: float = 3.0
    spatial_weight: float = 3.0
    spatial_std: float = 3.0
    iterations: int = 10
    backend: str = "numba"
    class_threshold: float = 0.01
    threads: int | None = None

    def __post_init__(self):
        for name in ("bilateral_weight", "spatial_weight", "class_threshold"):
            _check_number(name, getattr(self, name), "0 to 1e6", lambda value: 0 <= value <= 1e6)
        for name in ("bilateral_spatial_std", "bilateral_color_std", "spatial_std"):
            _check_number(name, getattr(self, name), "more than 0, up to 1e6", lambda value: 0 < value <= 1e6)
        _check_number(
            "iterations", self.iterations, "a whole number, zero or more", lambda value: value == int(value) >= 0
        )
        if self.threads is not None:
            _check_number(
                "threads", self.threads, "a whole number, one or more", lambda value: value == int(value) >= 1
            )
        if self.backend not in _BACKENDS:
            raise UserError(f"dense CRF: backend is {self.backend!r}, expected one of {', '.join(_BACKENDS)}")

    def __call__(self, image: np.ndarray, probabilities: np.ndarray, return_labels: bool = False) -> np.ndarray:
        """Runs mean-field inference on one image.

        With the backend "tensorflow" the arguments may also be tensors, of one image or of a batch, in a `tf.function`
        too; then the result is a tensor of as many dimensions, and the values are not checked.

        Args:
            image: uint8 [H, W, 3], RGB.
            probabilities: float [H, W, C], the network's softmax output at the size of the image.
            return_labels: return the most probable class of every pixel instead of the marginals.

        Returns:
            the marginals, float32 [H, W, C], which sum to one over the classes; or labels, uint8 [H, W] (int32 beyond
            256 classes).

        Raises:
            UserError: if the image or the probabilities are not as above.
        """
        if self.backend == "tensorflow":
            from deeplab_tf.crf import tensorflow_engine

            if tensorflow_engine.is_tensor(probabilities):
                return tensorflow_engine.infer(self, image, probabilities, return_labels)
        field = self._mean_field(image, probabilities)
        for _ in range(int(self.iterations)):
            field.update()
        if not return_labels:
            return field.marginals()
        return field.labels().astype(np.uint8 if np.shape(probabilities)[-1] <= 256 else np.int32)

    def trace(self, image: np.ndarray, probabilities: np.ndarray) -> Iterator[Iteration]:
        """Runs inference as a call does and yields the score and belief maps of every iteration (Fig. 5).

        Args:
            image: as in a call.
            probabilities: as in a call.

        Yields:
            `Iteration(scores, beliefs)`, each float32 [H, W, C].
        """
        field = self._mean_field(image, probabilities)
        for _ in range(int(self.iterations)):
            field.update()
            yield Iteration(field.scores(), field.marginals())

    def energy(self, image: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> float:
        """E(x) of the class description for the labels x, whichever the backend.

        The kernels are the normalised ones, summed over all pairs of pixels by the lattices: a pair is counted once, a
        pixel with itself never. Mean field lowers the energy, but need not find the lowest.

        Args:
            image: as in a call.
            probabilities: as in a call.
            labels: integers [H, W], 0 to C-1.

        Returns:
            the energy, in nats.

        Raises:
            UserError: if the image, the probabilities or the labels are not as above.
        """
        from deeplab_tf.crf.energy import pairwise_energy, unary_energy

        image = check_image(image)
        probabilities, _ = check_probabilities(probabilities, image.shape)
        labels = check_labels(labels, probabilities.shape)
        threads = self.threads or available_cores()
        bilateral, spatial = self._lattices(image, threads)
        return (
            unary_energy(probabilities, labels)
            + self.bilateral_weight * pairwise_energy(bilateral, labels)
            + self.spatial_weight * pairwise_energy(spatial, labels)
        )

    def _lattices(self, image, threads):
        from deeplab_tf.crf import numba_engine

        return (
            numba_engine.bilateral_lattice(image, self.bilateral_spatial_std, self.bilateral_color_std, threads),
            numba_engine.spatial_lattice(image.shape[:2], self.spatial_std, threads),
        )

    def _mean_field(self, image, probabilities):
        image = check_image(image)
        probabilities, peaks = check_probabilities(probabilities, image.shape)
        if self.backend != "numba":
            check_reach(image, self)
        if self.backend == "pydensecrf":
            from deeplab_tf.crf import pydensecrf_engine

            return pydensecrf_engine.MeanField(image, probabilities, self)
        if self.backend == "tensorflow":
            from deeplab_tf.crf import tensorflow_engine

            return tensorflow_engine.ImageMeanField(image, probabilities, self)
        from deeplab_tf.crf import numba_engine

        threads = self.threads or available_cores()
        active = peaks >= min(self.class_threshold, peaks.max())
        bilateral, spatial = self._lattices(image, threads)
        return numba_engine.MeanField(
            bilateral,
            (self.bilateral_weight,),
            spatial,
            self.spatial_weight,
            numba_engine.Unaries(probabilities, active, 1, threads),
            threads,
        )

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters of the model by name, without backend, class threshold and threads."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def save(self, path: str | os.PathLike, searched_for: Mapping[str, Any] | None = None) -> None:
        """Writes the parameters of the model (not the backend) to `path` as JSON.

        Args:
            path: the file to write.
            searched_for: what the parameters were searched for, in terms of JSON, see `read_searched_for`.
        """
        write_json(path, self.parameters | ({"searched_for": dict(searched_for)} if searched_for else {}))

    @classmethod
    def load(cls, path: str | os.PathLike, **settings) -> "DenseCRF":
        """Reads what `save` wrote.

        Args:
            path: a crf.json.
            **settings: further arguments of `DenseCRF`, such as `backend`.

        Raises:
            UserError: if the file is missing, is not JSON, or has other names in it.
        """
        try:
            parameters = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); tools/search_crf.py writes it") from error
        except ValueError as error:
            raise UserError(f"{path}: is not JSON ({error})") from error
        if isinstance(parameters, dict):
            parameters.pop("searched_for", None)
        if not isinstance(parameters, dict) or not set(parameters) <= set(_PARAMETERS):
            raise UserError(f"{path}: expected an object with {', '.join(_PARAMETERS)}")
        return cls(**{**parameters, **settings})


def read_searched_for(path: str | os.PathLike) -> dict[str, Any]:
    """The data and `Segmenter.settings` that a crf.json was searched for; empty where it does not say so."""
    try:
        return dict(json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["searched_for"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check_number(name, value, expected, holds):
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.number))
        or not math.isfinite(value)
        or not holds(value)
    ):
        raise UserError(f"dense CRF: {name} is {value!r}, expected {expected}")
