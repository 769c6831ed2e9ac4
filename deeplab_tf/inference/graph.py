"""The segmenter as a graph: images in, score maps, then labels, confidence or probabilities of every pixel."""

import itertools
from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.inference.tiling import Tiling
from deeplab_tf.models import DeepLab, geometry
from deeplab_tf.models.folded import FoldedNetwork, Weights

PRECISIONS = ("float32", "bfloat16", "float16")

# Rows of an image whose scores exist at the same time, where no more than the highest of each pixel is asked for.
_BAND = 32


class SegmentationGraph:
    """Scales, mirror, tiles, fusion and interpolation: what evaluation, prediction and the exported model share.

    Args:
        model: a `DeepLab`.
        scales: of its input, whose score maps are fused by maximum.
        mirror: whether the network sees the mirrored image too; the scores of both are averaged at every pixel.
        tiling: of large images, or None.
        pad_to: height and width, in pixels, that smaller images are padded to with the mean colour.
        precision: "float32", "bfloat16" or "float16": the network's present weights become constants of the graph in
            this precision; processors bring those into their order once. None: the weights are read whenever the graph
            runs, in the precision of the model, so that a training's validation has those of its step.
        align_corners: whether score maps and scaled inputs lie on the grid of the method, corners aligned; else as in
            deeplab-pytorch, see `DeepLab.centred_score_map`, without tiles and padding.

        vertical_flip: whether the network sees the image upside down too; beside the mirror, all four views.

    Attributes:
        channels: C of the score maps.
        views: of each view the axes along which the images are reversed.

    Raises:
        UserError: the precision is not one of these.
    """

    def __init__(
        self,
        model: DeepLab,
        scales: tuple[float, ...],
        mirror: bool = False,
        tiling: Tiling | None = None,
        precision: str | None = None,
        pad_to: int = 1,
        align_corners: bool = True,
        vertical_flip: bool = False,
    ):
        if precision not in (None, *PRECISIONS):
            raise UserError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
        self._model = model
        self._scales = scales
        sides = itertools.product([False, True] if vertical_flip else [False], [False, True] if mirror else [False])
        self.views = [[axis for axis, flips in zip((1, 2), both, strict=True) if flips] for both in sides]
        self._tiling = tiling
        self._pad_to = pad_to
        self._precision = precision or model.compute_dtype
        self._align_corners = align_corners
        self._network = FoldedNetwork(model, any_size=not align_corners)
        self.channels = self._network.channels
        self._constants = self._network.constants() if precision else None
        # Traced once, for every view and tile.
        self._score = tf.function(self._score_part, autograph=False)

    def score_maps(self, images: tf.Tensor) -> tf.Tensor:
        """The fused score maps of every view, to the end of the padding.

        Args:
            images: uint8 [B, H, W, 3], RGB.

        Returns:
            float32 [B, V, h, w, C]; V is the number of views.
        """
        weights = {} if self._constants else self._network.weights()  # once, not for every view and tile
        views = [tf.reverse(images, axes) if axes else images for axes in self.views]
        return tf.stack([self._view(view, weights) for view in views], axis=1)

    def _view(self, images: tf.Tensor, weights: Weights) -> tf.Tensor:
        if self._tiling is None:
            return self._score(images, weights)
        return self._tiling.score_map(lambda part: self._score(part, weights), images, self.channels)

    def _score_part(self, images: tf.Tensor, weights: Weights) -> tf.Tensor:
        """uint8 [B, H, W, 3], whole images or tiles -> float32 [B, h, w, C], to the end of the padding."""
        if self._constants:  # once for all scales
            weights = {
                name: (tf.constant(kernel, self._precision), tf.constant(bias))
                for name, (kernel, bias) in self._constants.items()
            }
        network = lambda inputs: self._network(inputs, weights, self._precision)  # noqa: E731
        if not self._align_corners:
            return self._model.centred_score_map(images, network, self._scales)
        score_maps = self._model.score_maps(
            images, crop=False, network=network, scales=self._scales, pad_to=self._pad_to
        )
        return score_maps["fused"]

    def probabilities(self, score_maps: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """The softmax of the scores at every pixel: float32 [B, height, width, C]."""
        return tf.nn.softmax(self._scores(score_maps, height, width))

    def labels(self, score_maps: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """The class of the highest score of every pixel: uint8 [B, height, width]."""
        return self.highest(score_maps, height, width, ["labels"])["labels"]

    def highest(
        self, score_maps: tf.Tensor, height: tf.Tensor, width: tf.Tensor, outputs: Sequence[str], in_bands: bool = True
    ) -> dict[str, tf.Tensor]:
        """Labels and confidence of every pixel.

        Args:
            score_maps: float32 [B, V, h, w, C].
            height: of the images, pixels.
            width: likewise.
            outputs: one or both of "labels" and "confidence".
            in_bands: whether to go band after band of rows, so that the scores of all pixels never exist.

        Returns:
            labels: uint8 [B, height, width], the class of the highest score, the first one where scores are equal.
            confidence: float32 [B, height, width], its probability.
        """
        if not in_bands:
            return self._highest(self._scores(score_maps, height, width), outputs)

        def band(number: tf.Tensor, *arrays: tf.TensorArray) -> tuple:
            top = number * _BAND
            rows = tf.minimum(_BAND, height - top)
            found = self._highest(self._scores(score_maps, height, width, top, rows), outputs)
            pairs = zip(arrays, found.values(), strict=True)
            return number + 1, *(array.write(number, tf.transpose(values, [1, 0, 2])) for array, values in pairs)

        bands = (height + _BAND - 1) // _BAND
        types = {"labels": tf.uint8, "confidence": tf.float32}
        arrays = [tf.TensorArray(types[output], bands, infer_shape=False) for output in outputs]
        _, *arrays = tf.while_loop(lambda number, *_: number < bands, band, (0, *arrays), parallel_iterations=1)
        return {
            output: tf.ensure_shape(tf.transpose(array.concat(), [1, 0, 2]), [None, None, None])
            for output, array in zip(outputs, arrays, strict=True)
        }

    def _highest(self, scores: tf.Tensor, outputs: Sequence[str]) -> dict[str, tf.Tensor]:
        compute = {
            "labels": lambda: most_probable(scores),
            "confidence": lambda: tf.exp(tf.reduce_max(scores, axis=-1) - tf.reduce_logsumexp(scores, axis=-1)),
        }
        return {output: compute[output]() for output in outputs}

    def _scores(
        self,
        score_maps: tf.Tensor,
        height: tf.Tensor,
        width: tf.Tensor,
        top: tf.Tensor | int = 0,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The scores of `rows` pixel rows from `top` on (None: all), [B, rows, width, C]: the mean over the views."""
        rows = height if rows is None else rows
        scores = []
        for view, axes in enumerate(self.views):
            first = height - top - rows if 1 in axes else top
            of_view = self._at_pixels(score_maps[:, view], height, width, first, rows)
            scores.append(tf.reverse(of_view, axes) if axes else of_view)
        if len(scores) == 1:
            return scores[0]
        # Stacked, or TensorFlow would join this sum with that of the interpolation, and round both views unequally.
        return tf.reduce_mean(tf.stack(scores), axis=0)

    def _at_pixels(self, score_map: tf.Tensor, height, width, top, rows) -> tf.Tensor:
        """One score map, float32 [B, h, w, C], at the pixels of those rows."""
        if self._align_corners:
            return geometry.upsample_score_map(score_map, rows, width, self._model.output_stride, top)
        of_map = tf.unstack(tf.shape(score_map)[1:3])
        return geometry.sample(
            score_map,
            geometry.centred_positions(rows, height, of_map[0], top),
            geometry.centred_positions(width, width, of_map[1]),
        )


def most_probable(scores: tf.Tensor) -> tf.Tensor:
    """The class of the highest score of every pixel, the first one where scores are equal: uint8."""
    return tf.cast(tf.argmax(scores, axis=-1, output_type=tf.int32), tf.uint8)
