"""Other forms of the served model, by their makers' converters: ONNX and LiteRT.

Neither has the operations of the dense CRF, nor 16-bit convolutions on a CPU: they hold the network in float32, with
the scales and the mirror of the segmenter, for whole images: no loop over tiles. `deeplab_tf.crf.DenseCRF` refines what
they return.
"""

import json
import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.errors import UserError
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.serving.outputs import Outputs

_OPSET = 17


def export_onnx(
    segmenter: Segmenter, path: str | os.PathLike, *, outputs: Sequence[str] = ("labels", "probabilities")
) -> pathlib.Path:
    """Writes an ONNX model, by tf2onnx: `images` uint8 [B, H, W, 3] of any size -> the outputs.

    Args:
        segmenter: without a CRF and without tiles.
        path: the file to write.
        outputs: as for `export_saved_model`.

    Returns:
        the path.

    Raises:
        UserError: the segmenter has a CRF or tiles; an output is not known; or tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError as error:
        raise UserError(f"ONNX needs tf2onnx ({error}); install it with: pip install 'deeplab_tf[export]'") from None
    function = _function(segmenter, outputs, [None, None, None, 3], "ONNX")
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=_OPSET)
    for node in model.graph.node:
        _make_padding_explicit(node)
    for name, value in segmenter.info.to_json().items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    return _write(path, model.SerializeToString())


def export_litert(
    segmenter: Segmenter,
    path: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    outputs: Sequence[str] = ("labels", "probabilities"),
) -> pathlib.Path:
    """Writes a LiteRT (TensorFlow Lite) model: `images` uint8 [1, height, width, 3] -> the outputs.

    Args:
        segmenter: without a CRF and without tiles.
        path: the file to write.
        image_size: height and width of every image, pixels: LiteRT lacks some of the arithmetic of sizes.
        outputs: as for `export_saved_model`.

    Returns:
        the path.

    Raises:
        UserError: the segmenter has a CRF or tiles, or an output is not known.
    """
    function = _function(segmenter, outputs, [1, *image_size, 3], "LiteRT")
    module = tf.Module()  # gives the model its signature
    module.segment = function
    module.preprocessing = [variable.value for variable in segmenter.model.preprocess.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    return _write(path, converter.convert())


def _function(segmenter: Segmenter, outputs: Sequence[str], shape: list[int | None], form: str):
    """The segmenter as a function of images, in operations that converters know."""
    if segmenter.crf is not None:
        raise UserError(f"crf: {form} lacks the operations of the dense CRF; export without it and call DenseCRF after")
    if segmenter.tiling is not None:
        raise UserError(f"tile_size: the {form} form segments whole images; export it without tiles")
    graph = Outputs(segmenter, outputs, "float32", in_bands=False)
    return tf.function(graph, input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")])


def _make_padding_explicit(node) -> None:
    """Writes out the padding of an atrous convolution: onnxruntime works it out for rate 1 only."""
    import onnx

    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    rates = attributes.get("dilations", [1])
    if node.op_type != "Conv" or attributes.get("auto_pad") != b"SAME_UPPER" or max(rates) == 1:
        return
    reach = [(side - 1) * rate for side, rate in zip(attributes["kernel_shape"], rates, strict=True)]
    pads = [side // 2 for side in reach] + [side - side // 2 for side in reach]
    kept = [attribute for attribute in node.attribute if attribute.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])


def _write(path: str | os.PathLike, content: bytes) -> pathlib.Path:
    path = pathlib.Path(path).expanduser()
    with files.written_aside(path) as aside:
        aside.write_bytes(content)
    return path
