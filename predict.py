"""Segments your photographs: indexed PNG masks and overlays.

python predict.py --model_dir=runs/voc --input='photos/*.jpg' --output_dir=out
python predict.py --model_dir=runs/voc --input=photos --output_dir=out --crf        with the dense CRF as well
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Segments the images that --input names."""
    from deeplab_tf.evaluation import Segmenter, predict
    from deeplab_tf.evaluation.predict import find_images

    inputs = find_images(FLAGS.input)
    segmenter = Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())
    output_dir = FLAGS.output_dir or pathlib.Path(FLAGS.model_dir) / "predictions"
    predictions = predict(segmenter, inputs, output_dir)
    kinds = "masks/, masks_crf/ and overlays/" if FLAGS.crf else "masks/ and overlays/"
    print(f"{predictions.images} of {len(inputs)} images segmented; {kinds} in {predictions.output_dir}")
    if predictions.unreadable:
        raise UserError(f"{len(predictions.unreadable)} files left out: " + "; ".join(predictions.unreadable))


if __name__ == "__main__":
    flags.run(main, topics=("run", "prediction", "evaluation"), required=("model_dir", "input"))
