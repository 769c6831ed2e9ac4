"""VGG-16's dense layers as the convolutions of a head."""

import dataclasses
import re

import keras
import numpy as np

from deeplab_tf.models import DeepLab
from deeplab_tf.weights.report import LoadReport
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


def calm_fresh_head(model: DeepLab, report: LoadReport) -> LoadReport:
    """Scales a fresh fc6 on loaded features, so that its outputs have an RMS of 1. A rule of ours, not the paper's.

    The features of a VGG-16 that sees colours of 0..255 have an RMS of some 20, which He's initialisation hands on to
    the scores: training at the paper's learning rate of 1e-3 then diverges at once. The features are those of one fixed
    picture, patches of random colours with noise.

    Args:
        model: with its weights loaded.
        report: of the load; returned with a note where layers were scaled.
    """
    fresh = [name for name in report.initialised if re.fullmatch(r"fc6(_\d)?", name)]
    if not fresh:
        return report
    rng = np.random.default_rng(0)
    picture = np.kron(rng.uniform(0, 255, (11, 11, 3)), np.ones((12, 12, 1)))[:129, :129]
    picture = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255)
    outputs = keras.Model(model.network.input, [model.network.get_layer(name).output for name in fresh])(
        model.preprocess(picture[np.newaxis])
    )
    for name, output in zip(fresh, outputs if isinstance(outputs, list) else [outputs], strict=True):
        rms = float(np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(output), dtype=np.float64))))
        kernel = model.network.get_layer(name).kernel
        if rms > 0:
            kernel.assign(keras.ops.convert_to_numpy(kernel) / rms)
    note = f"the fresh {', '.join(fresh)} scaled to outputs of RMS 1"
    return dataclasses.replace(report, notes=(*report.notes, note))
