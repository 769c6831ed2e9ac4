"""A segmenter as a graph: a batch of images in, labels, probabilities and confidences out."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.models import geometry
from deeplab_tf.serving.network import inference_network
from deeplab_tf.serving.tiling import tiled_score_map

OUTPUTS = ("labels", "probabilities", "confidence")

# Rows of an image whose scores exist at the same time, where no more than the highest of each pixel is asked for.
_BAND = 32


class SegmentationGraph:
    """What a `Segmenter` does, traceable, for a batch of images of one size.

    Args:
        segmenter: its model, CRF, mirror and tiles.
        outputs: of "labels" (uint8 [B, H, W]), "probabilities" (float32 [B, H, W, C]) and "confidence" (float32
            [B, H, W], the probability of the label).
        precision: of the network, see `inference_network`; default: that of the model.
        in_bands: whether labels and confidence are found band after band of rows, which saves memory, where
            probabilities are not asked for.

    Raises:
        UserError: an output is not one of these, or there is none; or the precision is not known.
    """

    def __init__(
        self, segmenter: Segmenter, outputs: Sequence[str], precision: str | None = None, in_bands: bool = True
    ):
        wrong = [output for output in outputs if output not in OUTPUTS]
        if wrong or not outputs:
            raise UserError(f"outputs={','.join(outputs)!r}: expected one or more of {', '.join(OUTPUTS)}")
        self.outputs = tuple(output for output in OUTPUTS if output in outputs)
        self.num_classes = segmenter.model.num_classes
        self._model = segmenter.model
        scales = segmenter.scales
        self._in_bands = in_bands and segmenter.crf is None and "probabilities" not in self.outputs
        self._mirror = segmenter.mirror
        self._tiling = segmenter.tiling
        self._crf = segmenter.crf and dataclasses.replace(segmenter.crf, backend="tensorflow")
        network = inference_network(self._model, precision or self._model.dtype_policy.compute_dtype)
        # Traced once, for every view, tile and signature.
        self._score = tf.function(
            lambda images: self._model.score_maps(images, crop=False, network=network, scales=scales)["fused"],
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")],
        )

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments images, uint8 [B, H, W, 3], RGB."""
        views = (images, images[:, :, ::-1]) if self._mirror else (images,)
        score_maps = [self._score_maps(view) for view in views]
        height, width = tf.unstack(tf.shape(images)[1:3])
        if self._in_bands:
            return self._highest(score_maps, height, width)
        probabilities = tf.nn.softmax(self._scores(score_maps, tf.range(height), width))
        if self._crf is not None:
            probabilities = self._refined(images, probabilities)
        return self._of_probabilities(probabilities)

    def _score_maps(self, images: tf.Tensor) -> tf.Tensor:
        """To the end of the padding, float32 [B, h, w, C]."""
        if self._tiling is None:
            return self._score(images)
        return tiled_score_map(self._score, images, self.num_classes, self._tiling)

    def _scores(self, score_maps: list[tf.Tensor], rows: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """The scores of some pixel rows, float32 [B, len(rows), width, C]: the mean over the views."""
        stride = self._model.output_stride
        positions = tf.cast(rows, tf.float32) / stride, tf.range(width, dtype=tf.float32) / stride
        views = [geometry.sample(score_map, *positions) for score_map in score_maps]
        if len(views) == 1:
            return views[0]
        return 0.5 * (views[0] + views[1][:, :, ::-1])

    def _highest(self, score_maps: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor) -> dict[str, tf.Tensor]:
        """Labels and confidence, band after band of rows: the scores of all pixels never exist."""

        def segment_band(band: tf.Tensor, labels: tf.TensorArray, confidence: tf.TensorArray) -> tuple:
            rows = tf.range(band * _BAND, tf.minimum((band + 1) * _BAND, height))
            scores = self._scores(score_maps, rows, width)
            labels = labels.write(band, tf.transpose(_labels(scores), [1, 0, 2]))
            if "confidence" in self.outputs:
                highest = tf.exp(tf.reduce_max(scores, axis=-1) - tf.reduce_logsumexp(scores, axis=-1))
                confidence = confidence.write(band, tf.transpose(highest, [1, 0, 2]))
            return band + 1, labels, confidence

        bands = -(-height // _BAND)
        arrays = (tf.TensorArray(dtype, bands, infer_shape=False) for dtype in (tf.uint8, tf.float32))
        _, labels, confidence = tf.while_loop(
            lambda band, *_: band < bands, segment_band, (0, *arrays), parallel_iterations=1
        )
        arrays = {"labels": labels, "confidence": confidence}
        return {
            output: tf.ensure_shape(tf.transpose(arrays[output].concat(), [1, 0, 2]), [None, None, None])
            for output in self.outputs
        }

    def _refined(self, images: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """After the CRF, image after image: the memory of one image at a time."""
        return tf.map_fn(
            lambda pair: self._crf(*pair),
            (images, probabilities),
            fn_output_signature=tf.TensorSpec([None, None, self.num_classes], tf.float32),
            parallel_iterations=1,
        )

    def _of_probabilities(self, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        found = {"probabilities": probabilities}
        if "labels" in self.outputs:
            found["labels"] = _labels(probabilities)
        if "confidence" in self.outputs:
            found["confidence"] = tf.reduce_max(probabilities, axis=-1)
        return {output: found[output] for output in self.outputs}


def _labels(scores: tf.Tensor) -> tf.Tensor:
    """The class of the highest score of every pixel, the first one where scores are equal: uint8."""
    return tf.cast(tf.argmax(scores, axis=-1, output_type=tf.int32), tf.uint8)
