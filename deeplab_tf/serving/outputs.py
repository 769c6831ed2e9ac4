"""The outputs of a served segmenter: labels, probabilities and confidence, as many as are asked for."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.inference.graph import most_probable
from deeplab_tf.inference.segmenter import Segmenter

OUTPUTS = ("labels", "probabilities", "confidence")


class Outputs:
    """A segmenter, traceable, for a batch of images of one size.

    Args:
        segmenter: its model, CRF, scales, mirror and tiles.
        names: of "labels" (uint8 [B, H, W]), "probabilities" (float32 [B, H, W, C]) and "confidence" (float32
            [B, H, W], the probability of the label).
        precision: of the network, whose present weights become constants; see `SegmentationGraph`.
        in_bands: whether labels and confidence are found band after band of rows, which saves memory, where
            probabilities are not asked for.

    Raises:
        UserError: an output is not one of these, or there is none; or the precision is not known.
    """

    def __init__(self, segmenter: Segmenter, names: Sequence[str], precision: str, in_bands: bool = True):
        wrong = [name for name in names if name not in OUTPUTS]
        if wrong or not names:
            raise UserError(f"outputs={','.join(names)!r}: expected one or more of {', '.join(OUTPUTS)}")
        self.names = tuple(name for name in OUTPUTS if name in names)
        self.num_classes = segmenter.model.num_classes
        if segmenter.input_scale != 1:
            raise UserError(
                f"--input_scale={segmenter.input_scale:g}: an export does not scale images; give --input_scale=1, and "
                "scale them before it"
            )
        self._graph = segmenter.graph(precision)
        self._crf = segmenter.crf and dataclasses.replace(segmenter.crf, backend="tensorflow")
        self._in_bands = in_bands

    def __call__(self, images: tf.Tensor, names: Sequence[str] | None = None) -> dict[str, tf.Tensor]:
        """Segments images, uint8 [B, H, W, 3], RGB: the outputs of these names, by default those of the object."""
        names = names or self.names
        score_maps = self._graph.score_maps(images)
        height, width = tf.unstack(tf.shape(images)[1:3])
        if self._crf is None and "probabilities" not in names:
            return self._graph.highest(score_maps, height, width, names, self._in_bands)
        probabilities = self._graph.probabilities(score_maps, height, width)
        if self._crf is not None:
            probabilities = self._refine(images, probabilities)
        found = {"probabilities": probabilities}
        if "labels" in names:
            found["labels"] = most_probable(probabilities)
        if "confidence" in names:
            found["confidence"] = tf.reduce_max(probabilities, axis=-1)
        return {name: found[name] for name in names}

    def _refine(self, images: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """Runs the CRF image after image: the memory of one image at a time."""
        return tf.map_fn(
            lambda pair: self._crf(*pair),
            (images, probabilities),
            fn_output_signature=tf.TensorSpec([None, None, self.num_classes], tf.float32),
            parallel_iterations=1,
        )
