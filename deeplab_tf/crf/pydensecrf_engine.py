"""The mean field of the dense CRF by pydensecrf, the C++ implementation that everybody compares with."""

import numpy as np

from deeplab_tf.crf.filtering import FLOOR
from deeplab_tf.errors import UserError


class MeanField:
    """The beliefs about one image, and their update."""

    def __init__(self, image: np.ndarray, probabilities: np.ndarray, parameters):
        """Args: image: uint8 [H, W, 3]; probabilities: float32 [H, W, C]; parameters: a `DenseCRF`.

        Raises:
            UserError: if pydensecrf is not installed.
        """
        try:
            from pydensecrf import densecrf
        except ImportError as error:
            raise UserError(
                "dense CRF: backend 'pydensecrf' is not installed: pip install 'deeplab_tf[pydensecrf]' or use 'numba'"
            ) from error
        height, width, classes = probabilities.shape
        self._shape = probabilities.shape
        unaries = -np.log(np.maximum(probabilities, FLOOR)).reshape(-1, classes).T
        self._crf = densecrf.DenseCRF2D(width, height, classes)
        self._crf.setUnaryEnergy(np.ascontiguousarray(unaries))
        self._crf.addPairwiseGaussian(sxy=parameters.spatial_std, compat=parameters.spatial_weight)
        self._crf.addPairwiseBilateral(
            sxy=parameters.bilateral_spatial_std,
            srgb=parameters.bilateral_color_std,
            rgbim=image.copy(),  # pydensecrf takes writable memory only
            compat=parameters.bilateral_weight,
        )
        self._beliefs, self._scratch1, self._scratch2 = self._crf.startInference()

    def update(self) -> None:
        """One iteration."""
        self._crf.stepInference(self._beliefs, self._scratch1, self._scratch2)

    def marginals(self) -> np.ndarray:
        """The current beliefs, float32 [H, W, C]."""
        height, width, classes = self._shape
        return np.ascontiguousarray(np.array(self._beliefs).reshape(classes, height * width).T).reshape(self._shape)

    def labels(self) -> np.ndarray:
        """The most probable classes, [H, W]."""
        return self.marginals().argmax(axis=-1)

    def scores(self) -> np.ndarray:
        """The logarithm of the beliefs: pydensecrf keeps its scores, which differ by a constant per pixel."""
        return np.log(np.maximum(self.marginals(), np.finfo(np.float32).tiny))
