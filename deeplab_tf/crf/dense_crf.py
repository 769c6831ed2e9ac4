"""The fully connected CRF of the paper (Sec. 3.3), for any network's probabilities."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.crf.check import as_array, check_axes, check_guide, check_labels, check_probabilities, is_number
from deeplab_tf.crf.features import bilateral_features, spatial_features
from deeplab_tf.crf.label_maps import label_probabilities
from deeplab_tf.errors import UserError
from deeplab_tf.files import write_json
from deeplab_tf.parallel import available_cores

_BACKENDS = ("numba", "tensorflow", "pydensecrf")
_NORMALIZATIONS = ("symmetric", "none", "before", "after")
# What describes the model, and not the way to compute it.
_PARAMETERS = (
    "bilateral_weight",
    "bilateral_spatial_std",
    "bilateral_color_std",
    "spatial_weight",
    "spatial_std",
    "iterations",
    "normalization",
    "compatibility",
)


class Iteration(NamedTuple):
    """One mean-field iteration, as Fig. 5 of the paper shows it."""

    scores: np.ndarray  # float32 [H, W, C], before the softmax: log P(x) plus the messages
    beliefs: np.ndarray  # float32 [H, W, C], after the softmax


class Kernel(NamedTuple):
    """A Gaussian kernel of the CRF."""

    weight: float
    features: np.ndarray  # float32 [d, N], in standard deviations


@dataclasses.dataclass(frozen=True)
class DenseCRF:
    """Sharpens a segmentation with a fully connected CRF (Sec. 3.3, Krähenbühl and Koltun 2011).

    It approximately minimises, by mean field,

        E(x) = sum_i -log P(x_i) + sum_(i<j) mu(x_i, x_j) (w1 k1(i, j) + w2 k2(i, j))
        k1(i, j) = exp(-|p_i - p_j|^2 / 2 sigma_alpha^2 - |I_i - I_j|^2 / 2 sigma_beta^2)
        k2(i, j) = exp(-|p_i - p_j|^2 / 2 sigma_gamma^2)

    where p are positions, I colours, and mu is 1 for different labels and 0 for equal ones (Potts) unless
    `compatibility` says otherwise. As in pydensecrf, the kernels' Gaussians are filtered on a permutohedral lattice,
    probabilities count as at least 1e-5, and a pixel's message to itself is not left out. The first three arguments
    are by default those of the released ResNet-101; the paper searches them for every model (Sec. 4.1.1).

    The object holds parameters only: it may be called from several threads at the same time.

    Args:
        bilateral_weight: w1, the weight of the kernel over positions and colours.
        bilateral_spatial_std: sigma_alpha, in pixels; or a tuple, one for each axis of the array: (y, x), (z, y, x).
        bilateral_color_std: sigma_beta, in units of the image (0..255 for RGB); or a tuple, one for each channel.
        spatial_weight: w2, the weight of the kernel over positions.
        spatial_std: sigma_gamma, in pixels; or a tuple as above.
        iterations: mean-field iterations, 10 in the paper.
        backend: "numba" (compiled, all cores), "tensorflow" (TensorFlow operations, also on a GPU and in a
            SavedModel) or "pydensecrf" (the reference, if installed). docs/crf.md has the table of what each takes.
        class_threshold: classes whose probability stays below this everywhere send no messages ("numba" without a
            compatibility matrix only): no pixel will take such a label, and the cost is that of the remaining classes.
            0 filters every class.
        threads: the cores to use at most ("numba" only); all by default.
        normalization: how k(i, j) is divided by row sums n_i = sum_j k(i, j): "symmetric", by sqrt(n_i n_j) (as
            pydensecrf); "after", by n_i at the receiving pixel (as the binary of the DeepLab release); "before", by n_j
            at the sending one; "none": the sums of the lattice as they are, which lie below those of the Gaussian.
        compatibility: mu, numbers [C, C], the row being the label of the pixel that receives the message; None: Potts.

    Raises:
        UserError: for parameters out of range.

    Example:
        >>> crf = DenseCRF(bilateral_weight=4, bilateral_spatial_std=67, bilateral_color_std=3)
        >>> labels = crf(image, probabilities, return_labels=True)
    """

    bilateral_weight: float = 4.0
    bilateral_spatial_std: float | tuple[float, ...] = 67.0
    bilateral_color_std: float | tuple[float, ...] = 3.0
    spatial_weight: float = 3.0
    spatial_std: float | tuple[float, ...] = 3.0
    iterations: int = 10
    backend: str = "numba"
    class_threshold: float = 0.01
    threads: int | None = None
    normalization: str = "symmetric"
    compatibility: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self):
        for name in ("bilateral_weight", "spatial_weight", "class_threshold"):
            _check_number(name, getattr(self, name), "0 to 1e6", lambda value: 0 <= value <= 1e6)
        for name in ("bilateral_spatial_std", "bilateral_color_std", "spatial_std"):
            object.__setattr__(self, name, _checked_std(name, getattr(self, name)))
        _check_number(
            "iterations", self.iterations, "a whole number, zero or more", lambda value: value == int(value) >= 0
        )
        if self.threads is not None:
            _check_number(
                "threads", self.threads, "a whole number, one or more", lambda value: value == int(value) >= 1
            )
            object.__setattr__(self, "threads", int(self.threads))
        for name, known in (("backend", _BACKENDS), ("normalization", _NORMALIZATIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"dense CRF: {name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if self.compatibility is not None:
            object.__setattr__(self, "compatibility", _checked_matrix(self.compatibility))

    def __call__(
        self,
        image: np.ndarray,
        probabilities: np.ndarray,
        return_labels: bool = False,
        *,
        num_classes: int | None = None,
        confidence: float = 0.7,
        ignore_label: int = IGNORE_LABEL,
    ) -> np.ndarray:
        """Runs mean-field inference on one image or volume.

        With the backend "tensorflow" the arguments may also be tensors, of one image or of a batch, in a `tf.function`
        too; then the result is a tensor of as many dimensions, and the values are not checked.

        Args:
            image: what the first kernel compares besides positions: uint8 [H, W, 3], RGB; or any number of channels,
                integers or floats, [H, W, n] or [H, W]; of a volume [D, H, W, n] or [D, H, W].
            probabilities: float [H, W, C] (of a volume [D, H, W, C]), the network's softmax output at the size of the
                image; or labels, integers [H, W] or [D, H, W], together with `num_classes`.
            return_labels: return the most probable class of every pixel instead of the marginals.
            num_classes: C, where labels are given.
            confidence: how likely a given label is right; the other classes share the rest.
            ignore_label: the label of pixels where every class is as likely.

        Returns:
            the marginals, float32 [H, W, C], which sum to one over the classes; or labels, uint8 [H, W] (int32 beyond
            256 classes); of a volume with D in front.

        Raises:
            UserError: if the image or the probabilities are not as above, or the backend does not take them.
        """
        if self.backend == "tensorflow":
            from deeplab_tf.crf import tensorflow_backend

            if tensorflow_backend.is_tensor(probabilities):
                if num_classes is not None:
                    raise UserError("dense CRF: label maps are taken as arrays only, not as tensors")
                return tensorflow_backend.infer(self, image, probabilities, return_labels)
        if num_classes is not None:
            labels = as_array("labels", probabilities)
            probabilities = label_probabilities(labels, num_classes, confidence, ignore_label)
        elif np.issubdtype(as_array("probabilities", probabilities).dtype, np.integer):
            raise UserError("dense CRF: integers were given instead of probabilities; for labels say num_classes")
        shape, field = self._mean_field(image, probabilities)
        for _ in range(int(self.iterations)):
            field.update()
        if not return_labels:
            return field.marginals().reshape(shape)
        return field.labels().reshape(shape[:-1]).astype(np.uint8 if shape[-1] <= 256 else np.int32)

    def trace(self, image: np.ndarray, probabilities: np.ndarray) -> Iterator[Iteration]:
        """Runs inference as a call does and yields the score and belief maps of every iteration (Fig. 5).

        Args:
            image: as in a call.
            probabilities: as in a call, no labels.

        Yields:
            `Iteration(scores, beliefs)`, each float32 [H, W, C].
        """
        shape, field = self._mean_field(image, probabilities)
        for _ in range(int(self.iterations)):
            field.update()
            yield Iteration(field.scores().reshape(shape), field.marginals().reshape(shape))

    def energy(self, image: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> float:
        """E(x) of the class description for the labels x, whichever the backend.

        The kernels are the normalised ones, summed over all pairs of pixels by the lattices: a pair is counted once, a
        pixel with itself never. Mean field lowers the energy, but need not find the lowest.

        Args:
            image: as in a call.
            probabilities: as in a call, no labels.
            labels: integers [H, W], 0 to C-1.

        Returns:
            the energy, in nats.

        Raises:
            UserError: if the image, the probabilities or the labels are not as above.
        """
        from deeplab_tf.crf.energy import pairwise_energy, unary_energy

        image, probabilities, _ = self._checked(image, probabilities)
        labels = check_labels(labels, probabilities.shape)
        matrix = None if self.compatibility is None else np.asarray(self.compatibility, np.float32)
        return unary_energy(probabilities, labels) + sum(
            potential_weight * pairwise_energy(lattice, labels.ravel(), self.normalization, matrix)
            for potential_weight, lattice in zip(
                (self.bilateral_weight, self.spatial_weight),
                self._lattices(image, self.threads or available_cores()),
                strict=True,
            )
        )

    def kernels(self, image: np.ndarray) -> tuple[Kernel, Kernel]:
        """The two kernels over the pixels of a guide [H, W, channels] or [D, H, W, channels]."""
        return (
            Kernel(
                self.bilateral_weight, bilateral_features(image, self.bilateral_spatial_std, self.bilateral_color_std)
            ),
            Kernel(self.spatial_weight, spatial_features(image.shape[:-1], self.spatial_std)),
        )

    def _checked(self, image, probabilities):
        probabilities = as_array("probabilities", probabilities)
        shape = probabilities.shape[:-1]
        if len(shape) in (2, 3):  # shapes first: channels in front make no distributions either
            image = check_guide(image, shape, self.bilateral_color_std)
        probabilities, peaks = check_probabilities(probabilities)
        check_axes(self, len(shape), image.shape[-1], probabilities.shape[-1])
        return image, probabilities, peaks

    def _lattices(self, image, threads):
        from deeplab_tf.crf.lattice import Lattice

        return [Lattice(kernel.features, threads) for kernel in self.kernels(image)]

    def _mean_field(self, image, probabilities):
        """The shape of the marginals, and the field at its start."""
        image, probabilities, peaks = self._checked(image, probabilities)
        shape = probabilities.shape
        if self.backend == "pydensecrf":
            from deeplab_tf.crf import pydensecrf_backend

            return shape, pydensecrf_backend.MeanField(self, image, probabilities)
        if self.backend == "tensorflow":
            from deeplab_tf.crf import tensorflow_backend

            return shape, tensorflow_backend.ImageMeanField(self, image, probabilities)
        from deeplab_tf.crf.mean_field import MeanField, Potential, Unaries

        threads = self.threads or available_cores()
        if self.compatibility is None:
            active = peaks >= min(self.class_threshold, peaks.max())
            compatibilities = [self.bilateral_weight, self.spatial_weight]
        else:
            active = np.ones(shape[-1], bool)
            compatibilities = [np.multiply(w, self.compatibility) for w in (self.bilateral_weight, self.spatial_weight)]
        potentials = [
            Potential(lattice, self.normalization, compatibility)
            for lattice, compatibility in zip(self._lattices(image, threads), compatibilities, strict=True)
        ]
        unaries = Unaries.of_probabilities(probabilities.reshape(-1, shape[-1]), active, threads=threads)
        return shape, MeanField(potentials, unaries, threads)

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments that make the model, without those of its computation, in terms of JSON."""
        parameters = {name: getattr(self, name) for name in _PARAMETERS}
        return {name: value for name, value in parameters.items() if value is not None}

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
            raise UserError(f"{path}: is not JSON ({error!s:.200})") from error
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
    if not is_number(value) or not holds(value):
        raise UserError(f"dense CRF: {name} is {value!r}, expected {expected}")


def _checked_std(name, value):
    """A standard deviation, or a tuple of them."""
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and np.ndim(value) == 1 and len(value):
        return tuple(_checked_std(name, one) for one in value)
    _check_number(name, value, "more than 0, up to 1e6; one number or a tuple", lambda value: 0 < value <= 1e6)
    return float(value)


def _checked_matrix(matrix):
    """A compatibility as tuples, which compare and can be written as JSON."""
    try:
        costs = np.asarray(matrix, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError("dense CRF: the compatibility is not an array of numbers [classes, classes]") from error
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or not np.abs(costs).max(initial=0) <= 1e6:
        raise UserError(
            f"dense CRF: the compatibility has shape {costs.shape}, expected [classes, classes] of numbers up to 1e6"
        )
    return tuple(map(tuple, costs.tolist()))
