"""From RGB in 0..255 to what a set of weights was trained on."""

import keras
import numpy as np
from keras import layers, ops

from deeplab_tf.errors import UserError

# name: (channel order, mean by channel of the output, divisor by channel of the output)
_STYLES = {
    # The released DeepLab models and most Caffe ones.
    "caffe": ("BGR", (104.008, 116.669, 122.675), (1.0, 1.0, 1.0)),
    # keras.applications' VGG and ResNet: Caffe's, with the mean of another computation.
    "keras": ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    # torchvision and the Model Garden.
    "torch": ("RGB", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    # EfficientNet-Lite.
    "lite": ("RGB", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}
STYLES = tuple(_STYLES)


def color_transform(style: str) -> tuple[np.ndarray, np.ndarray]:
    """The 3x3 matrix and the offset of `output = rgb @ matrix + offset`."""
    if style not in _STYLES:
        raise UserError(f"preprocessing={style!r} is not known; expected one of {', '.join(STYLES)}")
    order, mean, divisor = _STYLES[style]
    matrix = np.zeros((3, 3), np.float32)
    for channel, color in enumerate(order):
        matrix["RGB".index(color), channel] = 1.0 / divisor[channel]
    return matrix, (-np.array(mean) / np.array(divisor)).astype(np.float32)


@keras.saving.register_keras_serializable(package="deeplab_tf")
class Preprocessing(layers.Layer):
    """Orders the colour channels, subtracts the mean and scales.

    The numbers are (untrained) weights of the layer, so that they travel with the weights of the network they belong
    to: in checkpoints, weight files and exported models.

    Args:
        style: "caffe" (BGR minus (104.008, 116.669, 122.675)), "keras" (keras.applications' mean) or "torch" (RGB,
            torchvision's mean and standard deviation).
    """

    def __init__(self, style: str = "caffe", **kwargs):
        kwargs["dtype"] = "float32"  # 0..255 does not fit a half-precision float
        super().__init__(trainable=False, **kwargs)
        self.style = style
        matrix, offset = color_transform(style)
        self.matrix = self.add_weight(shape=(3, 3), initializer="zeros", trainable=False, name="matrix")
        self.offset = self.add_weight(shape=(3,), initializer="zeros", trainable=False, name="offset")
        self.matrix.assign(matrix)
        self.offset.assign(offset)
        self.built = True

    def load_own_variables(self, store) -> None:
        """Refuses the numbers of another style; called by Keras."""
        stored = [store[key] for key in sorted(store.keys())]
        ours = [ops.convert_to_numpy(self.matrix), ops.convert_to_numpy(self.offset)]
        # Keras comes again with nothing where it was refused before.
        if len(stored) != 2 or not all(map(np.allclose, stored, ours)):
            raise UserError(
                f"these weights were trained with other colours than preprocessing={self.style!r}; "
                "deeplab_tf.weights.describe(path) names theirs"
            )

    def call(self, images):
        """Images [..., 3] RGB in 0..255, any dtype -> float32 [..., 3]."""
        images = ops.cast(images, "float32")
        # Not a matrix product: those are rounded to fewer bits on accelerators.
        return sum(images[..., i : i + 1] * self.matrix[i] for i in range(3)) + self.offset

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"name": self.name, "style": self.style}
