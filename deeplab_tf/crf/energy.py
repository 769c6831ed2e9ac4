"""The energy of a labelling, by the same lattices as the mean field."""

import numpy as np

from deeplab_tf.crf.filtering import FLOOR
from deeplab_tf.crf.gaussian import filtered
from deeplab_tf.crf.lattice import Lattice


def unary_energy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The sum over all pixels of -log P of their label; float32 [H, W, C] and integers [H, W]."""
    of_label = np.take_along_axis(probabilities, labels[..., None], axis=-1)
    return float(-np.log(np.maximum(of_label, FLOOR)).sum(dtype=np.float64))


def pairwise_energy(lattice: Lattice, labels: np.ndarray) -> float:
    """The sum of the normalised kernel over all pairs of pixels of different labels; integers [H, W]."""
    found, labels = np.unique(labels.ravel(), return_inverse=True)
    near = filtered(lattice, (labels[:, None] == np.arange(len(found))).astype(np.float32))
    # Row i of `near` is what the pixels of every label are to pixel i: all but those of its own count, twice a pair.
    own = np.take_along_axis(near, labels[:, None], axis=1)
    return (float(near.sum(dtype=np.float64)) - float(own.sum(dtype=np.float64))) / 2
