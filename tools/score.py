"""Scores a folder of masks, of whatever origin, against a folder of truths: mean IoU and more, by class.

python tools/score.py --predictions=out/masks --labels=VOC2012/SegmentationClass --dataset=voc2012
python tools/score.py --predictions=out --labels=gtFine/val --label_suffix=_gtFine_labelIds --label_ids=cityscapes \
    --prediction_suffix=_leftImg8bit --dataset=cityscapes --classes=synthia16

Masks are found by their names, also in folders below. Printed are intersection over
union, precision, recall and F1, boundary IoU (Cheng et al. 2021) and boundary F1 (Csurka et al. 2013) of every class,
their means, the pixel accuracy and the trimap curve. What cannot be scored is left out and named at the end.
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Scores, prints the table, and names what could not be scored."""
    from deeplab_tf.data import catalogue
    from deeplab_tf.evaluation import scoring, tables

    known = catalogue.info(FLAGS.dataset, FLAGS.data_dir) if FLAGS["dataset"].present else None
    subsets = tables.named_subsets(FLAGS.classes or [])
    score = scoring.score_folders(
        scoring.MaskFolder(FLAGS.predictions, FLAGS.prediction_suffix, scoring.id_table(FLAGS.prediction_ids)),
        scoring.MaskFolder(FLAGS.labels, FLAGS.label_suffix, scoring.id_table(FLAGS.label_ids)),
        known and known.class_names,
        ignore_label=FLAGS.ignore_label,
        cores=FLAGS.cores,
    )
    print(f"{score.table(subsets)}\n")
    print(f"scored     {score.images} masks of {FLAGS.predictions}")
    if score.not_predicted:
        print(f"           {score.not_predicted} truths in {FLAGS.labels} have no prediction: not counted")
    if score.unlabelled:
        print(
            f"           {100 * score.unlabelled:.2f}% of the labelled pixels have no predicted class: counted as wrong"
        )
    if FLAGS.score_file:
        score.save(FLAGS.score_file, subsets)
        print(f"written    {FLAGS.score_file}")
    flags.tell_left_out(score.left_out)


if __name__ == "__main__":
    flags.run(main, "tools/score.py", required=("predictions", "labels"))
