"""A SavedModel as TF Serving wants it: a numbered version directory with signatures for pixels and for file bytes."""

import os
import pathlib
import shutil

import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.evaluation.segmenter import Segmenter

# Pixels beyond an image's own size, in a batch of images of several sizes.
PADDING_LABEL = 255


class ServedSegmenter(tf.Module):
    """The graph of a segmenter: images in, labels and probabilities out.

    Args:
        segmenter: its model and classes.
    """

    def __init__(self, segmenter: Segmenter):
        super().__init__(name="segmenter")
        self._model = segmenter.model
        # What the SavedModel stores: the plain variables, without the Python objects around them.
        self.weights = [variable.value for variable in segmenter.model.variables]

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The signatures by name.

        serving_default: `images` uint8 [B, H, W, 3] RGB -> `labels` uint8 [B, H, W], `probabilities` float32
        [B, H, W, C].

        serve_bytes: `image_bytes` string [B], each an encoded JPEG, PNG, BMP or (its first frame) GIF, of any sizes
        -> `labels` and `probabilities` as above, padded at the right and bottom to the largest (labels with 255);
        `sizes` int32 [B, 2], the height and width of each; `mask_png` string [B], the labels of each at its own size
        as an encoded PNG.
        """
        return {
            "serving_default": self.serve_images.get_concrete_function(),
            "serve_bytes": self.serve_bytes.get_concrete_function(),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def serve_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments a batch of images of one size."""
        logits = self._model.full_resolution(images)
        labels = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)
        return {"labels": labels, "probabilities": tf.nn.softmax(logits)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments encoded images, each at its own size."""

        def segment(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
            image = tf.ensure_shape(image, [None, None, 3])
            served = self.serve_images(image[tf.newaxis])
            labels = served["labels"][0]
            return {
                "labels": tf.RaggedTensor.from_tensor(labels),
                "probabilities": tf.RaggedTensor.from_tensor(served["probabilities"][0], ragged_rank=2),
                "sizes": tf.shape(labels),
                "mask_png": tf.io.encode_png(labels[..., tf.newaxis]),
            }

        num_classes = self._model.num_classes
        served = tf.map_fn(
            segment,
            image_bytes,
            fn_output_signature={
                "labels": tf.RaggedTensorSpec([None, None], tf.uint8, ragged_rank=1),
                "probabilities": tf.RaggedTensorSpec([None, None, num_classes], tf.float32, ragged_rank=2),
                "sizes": tf.TensorSpec([2], tf.int32),
                "mask_png": tf.TensorSpec([], tf.string),
            },
        )
        served["labels"] = served["labels"].to_tensor(PADDING_LABEL)
        served["probabilities"] = served["probabilities"].to_tensor()
        return served


def export_saved_model(segmenter: Segmenter, export_dir: str | os.PathLike) -> pathlib.Path:
    """Writes the next numbered version of a SavedModel.

    The version appears under its number only when it is whole, so a running TF Serving never loads half of it.

    Args:
        segmenter: with `info`; `assets.extra/classes.json` takes names, colours and the ignore label from there.
        export_dir: the model's base path for TF Serving.

    Returns:
        the version directory.
    """
    export_dir = pathlib.Path(export_dir).expanduser()
    export_dir.mkdir(parents=True, exist_ok=True)
    served = ServedSegmenter(segmenter)
    aside = export_dir / f".export-{os.getpid()}.part"
    try:
        tf.saved_model.save(served, str(aside), signatures=served.signatures())
        info = segmenter.info
        files.write_json(
            aside / "assets.extra" / "classes.json",
            {
                "class_names": list(info.class_names),
                "palette": info.palette.tolist(),
                "ignore_label": info.ignore_label,
            },
        )
        versions = [int(entry.name) for entry in export_dir.iterdir() if entry.name.isdigit()]
        version = export_dir / str(max(versions, default=0) + 1)
        os.replace(aside, version)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version
