"""A SavedModel as TF Serving wants it: a numbered version directory with signatures for pixels and for file bytes."""

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from deeplab_tf import files, model_card
from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.serving.encoded import check_size, decode_or_explain, decode_upright, upright_size
from deeplab_tf.serving.outputs import Outputs
from deeplab_tf.serving.warmup import write_warmup_requests

# A photograph of 12 megapixels, as telephones take them, is below it.
MAX_PIXELS = 1 << 24

# Times the pixels of the images of a request that they may take when they are padded to one size.
_MOST_PADDED = 4

# Bytes of an answer: no protocol buffer is larger, and so neither gRPC nor REST carries more.
_LARGEST_ANSWER = 2**31 - 1


class ServedSegmenter(tf.Module):
    """The signatures of a segmenter.

    Args:
        segmenter: its model, classes, CRF, mirror and tiles.
        outputs: of "labels", "probabilities" and "confidence".
        precision: of the network: "float32", "bfloat16" or "float16"; default: that of the model.
        max_pixels: of an image; larger ones are refused.

    Raises:
        UserError: an output or the precision is not one of these.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        outputs: Sequence[str] = ("labels", "probabilities"),
        precision: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(name="segmenter")
        self._max_pixels = max_pixels
        self._outputs = Outputs(segmenter, outputs, precision or segmenter.model.compute_dtype)
        # The graph's only variables, for the SavedModel to store: those of the network are constants of the graph.
        self.preprocessing = [variable.value for variable in segmenter.model.preprocess.variables]

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The signatures by name.

        serving_default: `images` uint8 [B, H, W, 3] RGB -> the outputs that were asked for: `labels` uint8 [B, H, W],
        `probabilities` float32 [B, H, W, C], `confidence` float32 [B, H, W], the probability of the label.

        serve_bytes: `image_bytes` string [B], each an encoded JPEG, PNG, BMP, WebP or (its first frame) GIF, of any
        sizes, turned upright as its EXIF orientation says -> the outputs as above, padded at the right and bottom to
        the largest (labels with 255, the others with 0); `sizes` int32 [B, 2], the height and width of each, upright;
        with the labels also `mask_png_bytes` string [B], those of each at its own size as an encoded PNG. An image that
        cannot be read fails the request.

        serve_png: `image_bytes` as above -> `mask_png_bytes` and `error`, string [B], whatever outputs were asked for.
        An image that cannot be read fails alone: its mask is empty, and its error says why; the others' errors are
        empty.
        """
        return {
            "serving_default": self.serve_images.get_concrete_function(),
            "serve_bytes": self.serve_bytes.get_concrete_function(),
            "serve_png": self.serve_png.get_concrete_function(),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")], autograph=False)
    def serve_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments a batch of images of one size."""
        size = check_size(*tf.unstack(tf.shape(images)[1:3]), self._max_pixels)
        with tf.control_dependencies([size, self._check_answer(tf.reduce_prod(tf.shape(images, tf.int64)[:3]))]):
            return self._outputs(tf.identity(images))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments encoded images, each at its own size, one after the other."""
        pixel_specs = {
            "labels": tf.RaggedTensorSpec([None, None], tf.uint8, ragged_rank=1),
            "probabilities": tf.RaggedTensorSpec([None, None, self._outputs.num_classes], tf.float32, ragged_rank=1),
            "confidence": tf.RaggedTensorSpec([None, None], tf.float32, ragged_rank=1),
        }
        specs = {output: pixel_specs[output] for output in self._outputs.names}
        specs["sizes"] = tf.TensorSpec([2], tf.int32)
        if "labels" in specs:
            specs["mask_png_bytes"] = tf.TensorSpec([], tf.string)

        def segment(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            image = decode_upright(encoded, self._max_pixels)
            pixels = {output: values[0] for output, values in self.serve_images(image[tf.newaxis]).items()}
            served = {output: tf.RaggedTensor.from_tensor(values) for output, values in pixels.items()}
            served["sizes"] = tf.shape(image)[:2]
            if "labels" in pixels:
                served["mask_png_bytes"] = _mask_png(pixels["labels"])
            return served

        sizes = tf.map_fn(
            lambda encoded: upright_size(encoded, self._max_pixels),
            image_bytes,
            fn_output_signature=tf.TensorSpec([2], tf.int64),
        )
        with tf.control_dependencies(self._check_padding(sizes)):
            image_bytes = tf.identity(image_bytes)
        served = tf.map_fn(segment, image_bytes, fn_output_signature=specs, parallel_iterations=1)
        for output in self._outputs.names:
            served[output] = served[output].to_tensor(IGNORE_LABEL if output == "labels" else None)
        return served

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serve_png(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Masks of encoded images, each at its own size, one after the other; a bad one fails alone."""

        def segment(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            image, error = decode_or_explain(encoded, self._max_pixels)
            mask = tf.cond(error == "", lambda: _mask_png(self._labels(image[tf.newaxis])[0]), lambda: tf.constant(""))
            return {"mask_png_bytes": mask, "error": error}

        specs = dict.fromkeys(["mask_png_bytes", "error"], tf.TensorSpec([], tf.string))
        return tf.map_fn(segment, image_bytes, fn_output_signature=specs, parallel_iterations=1)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False)
    def _labels(self, images: tf.Tensor) -> tf.Tensor:
        return self._outputs(images, ["labels"])["labels"]

    def _check_padding(self, sizes: tf.Tensor) -> list[tf.Operation]:
        """The operations that refuse images so unlike in size that padding, not they, would take the memory.

        Args:
            sizes: of the images of a request, int64 [B, 2].
        """
        padded = tf.shape(sizes, tf.int64)[0] * tf.reduce_prod(tf.reduce_max(tf.pad(sizes, [[0, 1], [0, 0]]), axis=0))
        most = tf.maximum(_MOST_PADDED * tf.reduce_sum(tf.reduce_prod(sizes, axis=1)), self._max_pixels)
        message = f"expected images that padded to one size take at most {_MOST_PADDED} times their own pixels; send "
        apart = tf.debugging.Assert(padded <= most, [message + "those of other sizes apart; found the sizes", sizes])
        return [apart, self._check_answer(padded)]

    def _check_answer(self, pixels: tf.Tensor) -> tf.Operation:
        """The operation that refuses a request whose answer of so many pixels could not be sent."""
        bytes_of = {"labels": 1, "confidence": 4, "probabilities": 4 * self._outputs.num_classes}
        size = pixels * sum(bytes_of[name] for name in self._outputs.names)
        message = f"expected images whose answer has at most {_LARGEST_ANSWER} bytes; send fewer at a time, or export "
        return tf.debugging.Assert(size <= _LARGEST_ANSWER, [message + "labels alone; found bytes", size])


def _mask_png(labels: tf.Tensor) -> tf.Tensor:
    """Labels uint8 [H, W] as an encoded PNG, one channel of 8 bits."""
    return tf.io.encode_png(labels[..., tf.newaxis])


def write_card(folder: pathlib.Path, segmenter: Segmenter, export: Mapping[str, Any]) -> None:
    """Writes the model card of an export; `export` says how it was made."""
    model_card.write(folder, model_card.of_segmenter(segmenter) | {"export": dict(export)})


def export_saved_model(
    segmenter: Segmenter,
    export_dir: str | os.PathLike,
    *,
    outputs: Sequence[str] = ("labels", "probabilities"),
    precision: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> pathlib.Path:
    """Writes the next numbered version of a SavedModel.

    The version appears under its number only when it is whole, so a running TF Serving never loads half of it. What the
    segmenter does is in the graph: the scales of its model, mirror, tiles and, where it has one, the CRF. Where the
    package tensorflow-serving-api is installed, warm-up requests are with it.

    Args:
        segmenter: with `info`; `assets.extra/classes.json` takes names, colours and the ignore label from there. The
            model card is beside it.
        export_dir: the model's base path for TF Serving.
        outputs: of "labels", "probabilities" and "confidence".
        precision: of the network: "float32", "bfloat16" or "float16"; default: that of the model. Scores,
            probabilities and CRF are float32.
        max_pixels: of an image; larger ones are refused with an error that says so.

    Returns:
        the version directory.

    Raises:
        UserError: an output or the precision is not one of these, the segmenter has no `info`, or the folder cannot be
            written.
    """
    segmenter.classes_to_json()
    served = ServedSegmenter(segmenter, outputs, precision, max_pixels)
    export_dir = pathlib.Path(export_dir).expanduser()
    files.remove_remains(export_dir)
    aside = export_dir / f".export-{files.process_name()}.part"
    try:
        with files.writing(export_dir):
            _write(aside, segmenter, served, max_pixels)
            settings = {"outputs": list(outputs), "precision": precision, "max_pixels": max_pixels}
            write_card(aside / "assets.extra", segmenter, settings)
            versions = [int(entry.name) for entry in export_dir.iterdir() if entry.name.isdigit()]
            version = export_dir / str(max(versions, default=0) + 1)
            os.replace(aside, version)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version


def _write(folder: pathlib.Path, segmenter: Segmenter, served: ServedSegmenter, max_pixels: int) -> None:
    """Writes the SavedModel with its warm-up requests and classes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    # A module of the variables alone: TensorFlow would trace functions in it again, and store the weights twice.
    module = tf.Module()
    module.preprocessing = served.preprocessing
    tf.saved_model.save(module, str(folder), signatures=served.signatures(), options=options)
    write_warmup_requests(folder, served.signatures(), max_pixels)
    files.write_json(folder / "assets.extra" / "classes.json", segmenter.classes_to_json())
