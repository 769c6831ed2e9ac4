"""VGG-16's dense layers as the convolutions of a head."""

import re

import numpy as np

from deeplab_tf.models import DeepLab
from deeplab_tf.weights.source import Array, Layers


def fully_connected(fc6: dict[str, Array], fc7: dict[str, Array], model: DeepLab, seed: int) -> Layers:
    """VGG-16's fc6 and fc7 as the convolutions of the model's head (Sec. 3.1 and 4.1.1).

    fc6 keeps every tap of its 7x7 grid that is on a coarser, equally spaced one: all of them for 7x7, rows and columns
    0, 2, 4, 6 for 4x4 and 0, 3, 6 for 3x3. Where the head has fewer than 4,096 filters, each branch keeps a random
    subset of its own, in fc7 of fc6's subset.

    Args:
        fc6: kernel [7, 7, 512, 4096] and bias [4096].
        fc7: kernel [4096, 4096] or [1, 1, 4096, 4096], and bias [4096].
        model: a `DeepLab` with the backbone VGG-16.
        seed: of the random subsets.
    """
    rng = np.random.default_rng(seed)
    counts = [weights["bias"].shape[0] for weights in (fc6, fc7)]
    layers: Layers = {}
    for layer in model.network.layers:
        if not re.fullmatch(r"fc6(_\d)?", layer.name):
            continue
        side, filters = layer.kernel.shape[0], layer.kernel.shape[-1]
        taps = {7: slice(None), 4: slice(None, None, 2), 3: slice(None, None, 3)}[side]
        of_fc6, of_fc7 = (np.sort(rng.permutation(count)[:filters]) for count in counts)

        def kernel6(taps=taps, chosen=of_fc6) -> np.ndarray:
            return fc6["kernel"].read()[taps, taps][..., chosen]

        def kernel7(rows=of_fc6, columns=of_fc7) -> np.ndarray:
            return fc7["kernel"].read().reshape(counts)[np.newaxis, np.newaxis, rows[:, np.newaxis], columns]

        def bias(array, chosen) -> Array:
            return Array((len(chosen),), lambda: array.read()[chosen])

        layers[layer.name] = {
            "kernel": Array((side, side, fc6["kernel"].shape[2], len(of_fc6)), kernel6),
            "bias": bias(fc6["bias"], of_fc6),
        }
        layers[layer.name.replace("fc6", "fc7")] = {
            "kernel": Array((1, 1, len(of_fc6), len(of_fc7)), kernel7),
            "bias": bias(fc7["bias"], of_fc7),
        }
    return layers
