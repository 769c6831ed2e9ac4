"""The energy of a labelling, by the same lattices as the mean field."""

import numpy as np

from deeplab_tf.crf.filtering import FLOOR
from deeplab_tf.crf.gaussian import normalizers
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.crf.mean_field import gaussian_filter


def unary_energy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The sum over all pixels of -log P of their label; float32 [..., C] and integers [...]."""
    of_label = np.take_along_axis(probabilities, labels[..., None], axis=-1)
    return float(-np.log(np.maximum(of_label, FLOOR)).sum(dtype=np.float64))


def pairwise_energy(
    lattice: Lattice, labels: np.ndarray, normalization: str = "symmetric", compatibility: np.ndarray | None = None
) -> float:
    """The sum of a normalised kernel times the compatibility of the labels over all pairs of pixels.

    Args:
        lattice: of the features.
        labels: integers [N].
        normalization: of the kernel.
        compatibility: float [C, C]; None: 1 for different labels, 0 for equal ones.
    """
    found, labels = np.unique(labels, return_inverse=True)
    # near[i, l] is the sum of k(i, j) over the pixels j of label l.
    one_hot = (labels[:, None] == np.arange(len(found))).astype(np.float32)
    near = gaussian_filter(lattice, len(found), normalization)(one_hot)
    costs = 1 - np.eye(len(found)) if compatibility is None else compatibility[np.ix_(found, found)]
    before, after = normalizers(lattice.response, normalization)
    with_itself = (before.astype(np.float64) * after * np.diag(costs)[labels]).sum()
    # Each pair is counted twice, a pixel with itself once.
    return float(((near * costs[labels]).sum(dtype=np.float64) - with_itself) / 2)
