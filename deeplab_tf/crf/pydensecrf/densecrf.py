"""Dense CRFs with the calls of pydensecrf.densecrf."""

import enum
from numbers import Number

import numpy as np

from deeplab_tf.crf.features import bilateral_features, spatial_features
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.crf.mean_field import MeanField, Potential, Unaries
from deeplab_tf.errors import UserError
from deeplab_tf.parallel import available_cores


class KernelType(enum.IntEnum):
    """The shapes of a kernel that learning may give it. In inference all are the same."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(enum.IntEnum):
    """Divisor of a kernel: none, its row sums before or after filtering, or their square roots at both."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
]

_NORMALIZATIONS = dict(zip(NormalizationType, ("none", "before", "after", "symmetric"), strict=True))
# Energies beyond this count as this: no message reaches it.
_HIGHEST_ENERGY = 1e30


class Unary:
    """A unary potential; `ConstUnary` is the one there is."""


class ConstUnary(Unary):
    """Unary energies that are given: float32 [C, N]."""

    def __init__(self, u: np.ndarray):
        """Takes the energies."""
        self.energies = u


class LogisticUnary(Unary):
    """Logistic regression over features, which pydensecrf learns by: not offered here."""

    def __init__(self, L: np.ndarray, f: np.ndarray):  # noqa: N803
        """Refuses."""
        raise UserError("dense CRF: LogisticUnary is not offered; compute the energies L @ f, and use setUnaryEnergy")


class DenseCRF:
    """A fully connected CRF of so many variables, with any features.

    Everything raises a UserError, which is a ValueError, where an argument has another shape than it should.

    Example:
        >>> d = DenseCRF(width * height, classes)
        >>> d.setUnaryEnergy(unary_from_softmax(softmax))
        >>> d.addPairwiseEnergy(create_pairwise_bilateral((67, 67), (3, 3, 3), image, chdim=2), compat=4)
        >>> q = np.array(d.inference(10))
    """

    def __init__(self, nvar: int, nlabels: int, *_, **__):
        """Starts without potentials: `nvar` variables (pixels), `nlabels` classes."""
        for name, value in (("nvar", nvar), ("nlabels", nlabels)):
            if isinstance(value, bool) or value != int(value) or value < 1:
                raise UserError(f"dense CRF: {name} is {value!r}, expected a whole number, one or more")
        self._count, self._classes = int(nvar), int(nlabels)
        self._energies = np.zeros((self._classes, self._count), np.float32)
        self._potentials: list[Potential] = []
        self._for_steps: MeanField | None = None  # kept for all steps and klDivergence
        self._threads = available_cores()

    def addPairwiseEnergy(  # noqa: N802
        self,
        features: np.ndarray,
        compat: float | np.ndarray,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds a Gaussian kernel.

        Args:
            features: float [d, N], in standard deviations.
            compat: a number: what two different labels cost (Potts); numbers [C]: what two equal labels cost; numbers
                [C, C]: what two labels cost; of an asymmetric matrix, the mean with its transpose, as pydensecrf.
            kernel: no matter which.
            normalization: of the kernel.
        """
        features = _floats("features", features)
        if features.ndim != 2 or features.shape[1] != self._count or not len(features):
            raise UserError(
                f"Bad shape for pairwise energy (Need (?, {self._count}), got {features.shape}): the last dimension "
                "is that of the variables"
            )
        try:
            KernelType(kernel)
            normalization = _NORMALIZATIONS[NormalizationType(normalization)]
        except ValueError as error:
            raise UserError(f"dense CRF: {error}; expected one of the constants of this module") from error
        lattice = Lattice(features, self._threads)
        self._potentials.append(Potential(lattice, normalization, self._compatibility(compat)))
        self._for_steps = None

    def _compatibility(self, compat):
        costs = _floats("compat", compat)
        if costs.ndim > 2 or any(size != self._classes for size in costs.shape):
            raise UserError(
                f"dense CRF: compat has shape {costs.shape}, expected a number, ({self._classes},) or "
                f"({self._classes}, {self._classes})"
            )
        if not np.isfinite(costs).all():
            raise UserError("dense CRF: compat contains values that are not finite (NaN or infinity)")
        return (costs + costs.T) / 2 if costs.ndim == 2 else costs

    def setUnary(self, u: Unary) -> None:  # noqa: N802
        """Sets a `ConstUnary`."""
        if not isinstance(u, ConstUnary):
            raise UserError(f"dense CRF: the unary is a {type(u).__name__}, expected a ConstUnary")
        self.setUnaryEnergy(u.energies)

    def setUnaryEnergy(self, u: np.ndarray, f: np.ndarray | None = None) -> None:  # noqa: N802
        """Sets the energies, float [C, N]: -log of the probabilities, up to a constant for each variable."""
        if f is not None:
            LogisticUnary(u, f)
        energies = _floats("unary", u)
        if energies.shape != (self._classes, self._count):
            raise UserError(f"Bad shape for unary energy (Need {(self._classes, self._count)}, got {energies.shape})")
        if np.isnan(energies).any():
            raise UserError("dense CRF: the unary energies contain NaN")
        self._energies = np.clip(energies, -_HIGHEST_ENERGY, _HIGHEST_ENERGY)
        self._for_steps = None

    def _field(self):
        unaries = Unaries.of_energies(self._energies, self._threads)
        return MeanField(self._potentials, unaries, self._threads)

    def inference(self, niter: int) -> np.ndarray:
        """The beliefs after so many iterations of mean field, float32 [C, N]."""
        field = self._field()
        for _ in range(niter):
            field.update()
        return field.marginals().T

    def _steps(self):
        """The mean field of the steps and of klDivergence, which share its filters."""
        self._for_steps = self._for_steps or self._field()
        return self._for_steps

    def startInference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # noqa: N802
        """The beliefs before the first step, float32 [C, N], and two empty arrays (the memory of pydensecrf)."""
        self._steps().restart()
        return self._steps().marginals().T, *np.empty((2, 0, 0), np.float32)

    def stepInference(self, Q: np.ndarray, tmp1: np.ndarray, tmp2: np.ndarray) -> None:  # noqa: N802, N803
        """One iteration from the beliefs `Q`, which it overwrites; `tmp1` and `tmp2` are those of `startInference`."""
        self._steps().update_from(self._beliefs(Q).T)
        Q[:] = self._steps().marginals().T

    def klDivergence(self, Q: np.ndarray) -> float:  # noqa: N802
        """The Kullback-Leibler divergence of the beliefs `Q` from the model, up to a constant, as pydensecrf has it."""
        beliefs = self._beliefs(Q)
        logarithms = np.log(np.maximum(beliefs, np.float32(1e-20)))
        # What a message adds to a score lowers the energy; pydensecrf writes the Potts model as -w for equal labels.
        self._steps().update_from(beliefs.T)
        scores = self._steps().messages().T - self._energies
        return float(np.sum(beliefs * (logarithms - scores), dtype=np.float64))

    def _beliefs(self, Q):  # noqa: N803
        beliefs = _floats("Q", Q)
        if beliefs.shape != (self._classes, self._count) or not np.isfinite(beliefs).all():
            raise UserError(
                f"dense CRF: Q has shape {beliefs.shape}, expected finite beliefs {(self._classes, self._count)}"
            )
        return beliefs


class DenseCRF2D(DenseCRF):
    """A fully connected CRF of the pixels of an image."""

    def __init__(self, w: int, h: int, nlabels: int, *_, **__):
        """Starts without potentials: width and height in pixels, and the number of classes."""
        super().__init__(w * h, nlabels)
        self._shape = (int(h), int(w))

    def addPairwiseGaussian(  # noqa: N802
        self,
        sxy: float | tuple[float, float],
        compat: float | np.ndarray,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds a kernel over positions; `sxy` in pixels, one number or (x, y)."""
        features = spatial_features(self._shape, _per_axis("sxy", sxy, 2)[::-1])
        self.addPairwiseEnergy(features, compat, kernel, normalization)

    def addPairwiseBilateral(  # noqa: N802
        self,
        sxy: float | tuple[float, float],
        srgb: float | tuple[float, float, float],
        rgbim: np.ndarray,
        compat: float | np.ndarray,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds a kernel over positions and colours.

        Args:
            sxy: in pixels, one number or (x, y).
            srgb: in units of the image, one number or one for each channel.
            rgbim: uint8 [H, W, 3].
            compat: as in `addPairwiseEnergy`.
            kernel: no matter which.
            normalization: of the kernel.
        """
        rgbim = np.asarray(rgbim)
        if rgbim.shape != (*self._shape, 3) or rgbim.dtype != np.uint8:
            raise UserError(
                f"Bad shape for pairwise bilateral (Need {(*self._shape, 3)} of uint8, got {rgbim.shape} of "
                f"{rgbim.dtype}); for other images: addPairwiseEnergy with create_pairwise_bilateral"
            )
        features = bilateral_features(rgbim, _per_axis("sxy", sxy, 2)[::-1], _per_axis("srgb", srgb, 3))
        self.addPairwiseEnergy(features, compat, kernel, normalization)


def _floats(name, values):
    """Any numbers as float32."""
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            return np.asarray(values).astype(np.float32, casting="same_kind", copy=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"dense CRF: {name} is not an array of numbers ({error})") from error


def _per_axis(name, std, axes):
    """So many standard deviations."""
    stds = (std,) * axes if isinstance(std, Number) else tuple(std)
    if len(stds) != axes or not all(isinstance(one, Number) and 0 < one < float("inf") for one in stds):
        raise UserError(f"dense CRF: {name} is {std!r}, expected one number or {axes}, more than 0")
    return stds
