"""The dense CRF as a layer that learns: mean field unrolled, as in CRF-RNN.

Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015.
"""

import math

import keras
import tensorflow as tf

from deeplab_tf.crf.dense_crf import DenseCRF
from deeplab_tf.crf.tensorflow_backend import FLOOR, MeanField
from deeplab_tf.errors import UserError


@keras.saving.register_keras_serializable("deeplab_tf")
class CRFLayer(keras.layers.Layer):
    """Refines the score maps of a network with the dense CRF, and learns how (TensorFlow backend of Keras).

    At the start the marginals are those of `DenseCRF`. Its weights are

        bilateral_weight  []      w1, of the kernel over positions and colours
        spatial_weight    []      w2, of the kernel over positions
        compatibility     [C, C]  mu(x, x'), the cost of the label x at a pixel and x' at another; Potts at the start

    The output is differentiable in them and in the scores, not in the images nor the standard deviations.
    Set `layer.compatibility.trainable = False` to learn the two weights only; then `DenseCRF` takes what was learnt.

    Args:
        bilateral_weight: w1 at the start.
        bilateral_spatial_std: sigma_alpha, in pixels.
        bilateral_color_std: sigma_beta, in RGB units of 0..255.
        spatial_weight: w2 at the start.
        spatial_std: sigma_gamma, in pixels.
        iterations: mean-field iterations; CRF-RNN trains with 5 and predicts with 10.
        **kwargs: of `keras.layers.Layer`. Everything is computed in float32, or in float64 with dtype="float64".

    Raises:
        UserError: for parameters out of range, or another backend of Keras.

    Example:
        >>> images = keras.Input([None, None, 3])
        >>> scores = keras.layers.Conv2D(21, 3, padding="same")(images)
        >>> refined = CRFLayer(iterations=5)(images, scores)
        >>> model = keras.Model(images, refined)
        >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """

    def __init__(
        self,
        bilateral_weight: float = 4.0,
        bilateral_spatial_std: float = 67.0,
        bilateral_color_std: float = 3.0,
        spatial_weight: float = 3.0,
        spatial_std: float = 3.0,
        iterations: int = 10,
        **kwargs,
    ):
        if keras.backend.backend() != "tensorflow":
            raise UserError(f"CRFLayer: the backend of Keras is {keras.backend.backend()}, expected tensorflow")
        super().__init__(**{"autocast": False, **kwargs})
        self._initial = DenseCRF(
            bilateral_weight, bilateral_spatial_std, bilateral_color_std, spatial_weight, spatial_std, iterations
        )
        self.bilateral_spatial_std = bilateral_spatial_std
        self.bilateral_color_std = bilateral_color_std
        self.spatial_std = spatial_std
        self.iterations = int(iterations)

    def build(self, images_shape, scores_shape):
        """Makes the weights."""
        _check_shapes(images_shape, scores_shape)
        classes = scores_shape[-1]
        if classes is None:
            raise UserError(
                f"CRFLayer: the scores have shape {tuple(scores_shape)}, expected a known number of classes"
            )

        def weight(name, start):
            return self.add_weight(shape=(), initializer=keras.initializers.Constant(start), name=name)

        self.bilateral_weight = weight("bilateral_weight", self._initial.bilateral_weight)
        self.spatial_weight = weight("spatial_weight", self._initial.spatial_weight)
        self.compatibility = self.add_weight(shape=(classes, classes), initializer=_potts, name="compatibility")

    def call(self, images, scores):
        """Refines.

        Args:
            images: uint8 or float [B, H, W, 3], RGB in 0..255.
            scores: float [B, H, W, C], what the network's softmax is taken of (log-probabilities will do), at the size
                of the images.

        Returns:
            float32 [B, H, W, C], scores whose softmax are the marginals.

        Raises:
            UserError: if the shapes are not as above.
        """
        _check_shapes(images.shape, scores.shape)
        unaries = tf.nn.log_softmax(tf.cast(scores, tf.float64 if self.compute_dtype == "float64" else tf.float32))
        # Probabilities count as at least 1e-5, as in `DenseCRF`; their gradient goes on below it, so that the network
        # still learns where it is sure of a wrong class.
        unaries += tf.stop_gradient(tf.maximum(unaries, math.log(FLOOR)) - unaries)
        field = MeanField(images, unaries, self, tf.cast(self.compatibility, unaries.dtype))
        for _ in range(self.iterations):
            field.update()
        return field.scores()

    def compute_output_shape(self, images_shape, scores_shape):
        """The shape of the scores."""
        return tuple(scores_shape)

    def get_config(self):
        """The arguments of the constructor."""
        names = ("bilateral_weight", "bilateral_spatial_std", "bilateral_color_std", "spatial_weight", "spatial_std")
        return super().get_config() | {name: getattr(self._initial, name) for name in (*names, "iterations")}


def _potts(shape, dtype=None):
    """1 off the diagonal."""
    return 1 - tf.eye(shape[0], dtype=dtype)


def _check_shapes(images_shape, scores_shape):
    images_shape, scores_shape = tuple(images_shape), tuple(scores_shape)
    expected = "expected images [B, H, W, 3] and scores [B, H, W, C] of the same size: interpolate the scores first"
    found = f"CRFLayer: the images have shape {images_shape} and the scores {scores_shape}"
    if len(images_shape) != 4 or len(scores_shape) != 4 or images_shape[-1] != 3:
        raise UserError(f"{found}; {expected}")
    if any(a is not None and b is not None and a != b for a, b in zip(images_shape[:3], scores_shape[:3], strict=True)):
        raise UserError(f"{found}; {expected}")
