"""Exports a trained model for TF Serving: a numbered version of a SavedModel; on request also ONNX and LiteRT.

python export_saved_model.py --model_dir=runs/voc --export_dir=exported
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --crf       with the dense CRF in the graph
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --outputs=labels,confidence
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --tile_size=513       for large images
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --precision=bfloat16
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --forms=onnx,litert --litert_size=513,513
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS

FORMS = ("saved_model", "onnx", "litert")


def main() -> None:
    """Exports a checkpoint of --model_dir."""
    from deeplab_tf import serving
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.serving.warmup import WARMUP_FILE

    if not FLAGS.forms or set(FLAGS.forms) - set(FORMS):
        raise UserError(f"--forms={','.join(FLAGS.forms)}: expected one or more of {', '.join(FORMS)}")
    height_and_width = flags.numbers("litert_size")
    if len(height_and_width) != 2 or min(height_and_width) < 1:
        raise UserError(
            f"--litert_size={','.join(FLAGS.litert_size)}: expected height,width in pixels, such as 513,513"
        )

    segmenter = Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())
    folder = pathlib.Path(FLAGS.export_dir).expanduser()
    if "saved_model" in FLAGS.forms:
        precision = FLAGS.precision.removeprefix("mixed_")
        version = serving.export_saved_model(
            segmenter, folder, outputs=FLAGS.outputs, precision=precision, max_pixels=FLAGS.max_pixels
        )
        print(f"exported to {version}; signatures: serving_default (uint8 images), serve_bytes (encoded images)")
        if not (version / WARMUP_FILE).is_file():
            print("no warm-up requests in it: tensorflow-serving-api is missing; pip install -e '.[serving]'")
    if "onnx" in FLAGS.forms:
        path = serving.export_onnx(segmenter, folder / "model.onnx", outputs=FLAGS.outputs)
        print(f"exported to {path}; input: images, uint8, of any size")
    if "litert" in FLAGS.forms:
        height, width = map(int, height_and_width)
        path = serving.export_litert(
            segmenter, folder / "model.tflite", image_size=(height, width), outputs=FLAGS.outputs
        )
        print(f"exported to {path}; input: images, uint8 [1, {height}, {width}, 3]")


if __name__ == "__main__":
    flags.run(main, topics=("run", "evaluation", "export"), required=("model_dir", "export_dir"))
