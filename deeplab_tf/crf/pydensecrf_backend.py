"""The mean field of the dense CRF by pydensecrf, the C++ implementation that everybody compares with."""

import math

import numpy as np

from deeplab_tf.crf.filtering import FLOOR
from deeplab_tf.crf.lattice import check_reach
from deeplab_tf.errors import UserError


class MeanField:
    """The beliefs about one image, and their update."""

    def __init__(self, parameters, image: np.ndarray, probabilities: np.ndarray):
        """Starts with the probabilities as beliefs.

        Args:
            parameters: a `DenseCRF`.
            image: numbers [H, W, channels] or [D, H, W, channels].
            probabilities: float32 [H, W, C] or [D, H, W, C].

        Raises:
            UserError: if pydensecrf is not installed, or cannot do what the parameters say.
        """
        try:
            from pydensecrf import densecrf
        except ImportError as error:
            raise UserError(
                "dense CRF: backend 'pydensecrf' is not installed: pip install 'deeplab_tf[pydensecrf]' or use 'numba'"
            ) from error
        costs = parameters.compatibility and np.asarray(parameters.compatibility, np.float32)
        if costs is not None and not np.array_equal(costs, costs.T):
            raise UserError(
                "dense CRF: backend 'pydensecrf' takes symmetric compatibilities only; use 'numba' for this one"
            )
        *shape, classes = probabilities.shape
        self._classes = classes
        energies = -np.log(np.maximum(probabilities, FLOOR)).reshape(-1, classes).T
        self._crf = densecrf.DenseCRF(math.prod(shape), classes)
        self._crf.setUnaryEnergy(np.ascontiguousarray(energies))
        normalization = {
            "none": densecrf.NO_NORMALIZATION,
            "before": densecrf.NORMALIZE_BEFORE,
            "after": densecrf.NORMALIZE_AFTER,
            "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        }[parameters.normalization]
        for kernel in parameters.kernels(image):
            check_reach(kernel.features)
            compatibility = kernel.weight if costs is None else kernel.weight * costs
            self._crf.addPairwiseEnergy(
                np.ascontiguousarray(kernel.features), compat=compatibility, normalization=normalization
            )
        self._beliefs, self._scratch1, self._scratch2 = self._crf.startInference()

    def update(self) -> None:
        """One iteration."""
        self._crf.stepInference(self._beliefs, self._scratch1, self._scratch2)

    def marginals(self) -> np.ndarray:
        """The current beliefs, float32 [N, C]."""
        return np.ascontiguousarray(np.array(self._beliefs).reshape(self._classes, -1).T)

    def labels(self) -> np.ndarray:
        """The most probable classes, [N]."""
        return self.marginals().argmax(axis=-1)

    def scores(self) -> np.ndarray:
        """The logarithm of the beliefs: pydensecrf keeps its scores, which differ by a constant per pixel."""
        return np.log(np.maximum(self.marginals(), np.finfo(np.float32).tiny))
