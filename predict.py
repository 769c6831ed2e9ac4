"""Segments your photographs: indexed PNG masks and overlays, or probabilities, polygons, COCO annotations.

python predict.py --model_dir=runs/voc --input='photos/*.jpg' --output_dir=out
python predict.py --model_dir=runs/voc --input=photos --output_dir=out --crf        with the dense CRF as well
python predict.py --model_dir=runs/voc --input=photos --output_dir=out --format=masks,probabilities,polygons,coco

When it was stopped, the same command goes on; images that are done and have not changed since are left out.
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Segments the images that --input names."""
    from deeplab_tf.evaluation import Segmenter, predict
    from deeplab_tf.evaluation.predict import find_images

    inputs = find_images(FLAGS.input)[: FLAGS.limit]
    segmenter = Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())
    output_dir = FLAGS.output_dir or pathlib.Path(FLAGS.model_dir) / "predictions"
    predictions = predict(segmenter, inputs, output_dir, FLAGS.format)
    before = f", {predictions.done_before} had been done before" if predictions.done_before else ""
    print(f"segmented  {predictions.images} of {len(inputs)} images in {predictions.seconds:.1f} s{before}")
    print(f"written    {', '.join(FLAGS.format)} to {predictions.output_dir}")
    if predictions.unreadable:
        raise UserError(f"{len(predictions.unreadable)} files left out: " + "; ".join(predictions.unreadable))
    if predictions.stopped:
        raise KeyboardInterrupt


if __name__ == "__main__":
    flags.run(main, topics=("run", "prediction", "evaluation"), required=("model_dir", "input"))
