"""Exports a trained model for TF Serving: a SavedModel in a numbered version directory.

python export_saved_model.py --model_dir=runs/voc --export_dir=exported
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --crf       with the dense CRF in the graph
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --outputs=labels,confidence
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --tile_size=513       for large images
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --precision=bfloat16
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Exports a checkpoint of --model_dir."""
    from deeplab_tf.evaluation import Segmenter
    from deeplab_tf.serving import export_saved_model
    from deeplab_tf.serving.warmup import WARMUP_FILE

    segmenter = Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())
    precision = FLAGS.precision.removeprefix("mixed_")
    version = export_saved_model(
        segmenter, FLAGS.export_dir, outputs=FLAGS.outputs, precision=precision, max_pixels=FLAGS.max_pixels
    )
    print(f"exported to {version}; signatures: serving_default (uint8 images), serve_bytes (encoded images)")
    if not (version / WARMUP_FILE).is_file():
        print("no warm-up requests in it: the package tensorflow-serving-api is missing; pip install -e '.[serving]'")


if __name__ == "__main__":
    flags.run(main, topics=("run", "evaluation", "export"), required=("model_dir", "export_dir"))
