"""The outputs of a served segmenter: labels, probabilities and confidence, as many as are asked for."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf.data.augmentation import resize_images
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
        self._input_scale = segmenter.input_scale
        self._graph = segmenter.graph(precision)
        self._crf = segmenter.crf and dataclasses.replace(segmenter.crf, backend="tensorflow")
        self._in_bands = in_bands

    def __call__(self, images: tf.Tensor, names: Sequence[str] | None = None) -> dict[str, tf.Tensor]:
        """Segments images, uint8 [B, H, W, 3], RGB: the outputs of these names, by default those of the object."""
        names = names or self.names
        if self._crf is None and "probabilities" not in names and self._input_scale == 1:
            height, width = tf.unstack(tf.shape(images)[1:3])
            return self._graph.highest(self._graph.score_maps(images), height, width, names, self._in_bands)
        probabilities = self._probabilities(images)
        if self._crf is not None:
            probabilities = self._refine(images, probabilities)
        found = {"probabilities": probabilities}
        if "labels" in names:
            found["labels"] = most_probable(probabilities)
        if "confidence" in names:
            found["confidence"] = tf.reduce_max(probabilities, axis=-1)
        return {name: found[name] for name in names}

    def _probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """float32 [B, H, W, C], found at the size that the network sees images at, and scaled back."""
        size = _size(images)
        scaled = images
        if self._input_scale != 1:
            # As float32: ONNX's interpolation of bytes gives bytes.
            scaled = resize_images(tf.cast(images, tf.float32), [_rounded(self._input_scale, side) for side in size])
        probabilities = self._graph.probabilities(self._graph.score_maps(scaled), *_size(scaled))
        return probabilities if self._input_scale == 1 else tf.image.resize(probabilities, tf.stack(size))

    def _refine(self, images: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """Runs the CRF image after image: the memory of one image at a time."""
        return tf.map_fn(
            lambda pair: self._crf(*pair),
            (images, probabilities),
            fn_output_signature=tf.TensorSpec([None, None, self.num_classes], tf.float32),
            parallel_iterations=1,
        )


def _size(images: tf.Tensor) -> list[int | tf.Tensor]:
    """Height and width: numbers where they are known, so that a form of one size computes none."""
    known, found = images.shape[1:3], tf.shape(images)
    return [found[1 + i] if known[i] is None else known[i] for i in range(2)]


def _rounded(scale: float, side: int | tf.Tensor) -> int | tf.Tensor:
    """A side of the scaled image, as `Segmenter` computes it."""
    if isinstance(side, int):
        return max(1, round(scale * side))
    return tf.maximum(1, tf.cast(tf.round(tf.constant(scale, tf.float64) * tf.cast(side, tf.float64)), tf.int32))
