"""Exports a trained model for TF Serving: a SavedModel in a numbered version directory.

python export_saved_model.py --model_dir=runs/voc --export_dir=exported
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Exports the last checkpoint of --model_dir."""
    from deeplab_tf.evaluation import Segmenter
    from deeplab_tf.serving import export_saved_model

    segmenter = Segmenter.load(FLAGS.model_dir, scales=flags.numbers("eval_scales"), checkpoint=FLAGS.checkpoint)
    version = export_saved_model(segmenter, FLAGS.export_dir)
    print(f"exported to {version}; signatures: serving_default (uint8 images), serve_bytes (encoded images)")


if __name__ == "__main__":
    flags.run(main, topics=("run", "evaluation", "export"), required=("model_dir", "export_dir"))
