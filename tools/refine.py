"""Refines the results of your own network with the dense CRF: images and a folder of maps in, masks out.

python tools/refine.py --input=images --maps=probabilities --output_dir=refined
python tools/refine.py --input='images/*.jpg' --maps=masks --label_confidence=0.6 --output_dir=refined
python tools/refine.py --input=images --maps=logits --scores --output_dir=refined --format=masks,probabilities
python tools/refine.py --input=images --maps=cams --cam_threshold=0.3 --output_dir=pseudo_labels
python tools/refine.py --input=images --maps=probabilities --crf_file=runs/voc/crf.json --output_dir=refined

A map has the stem of its image: probabilities, .npy or .npz, float [H, W, C] or [C, H, W], that sum to 1 over the
classes; with --scores the scores before the softmax, of any size; labels, .png with a class number a pixel, 255 for
none; or class activation maps, the dict .npy of weakly supervised methods. All cores are used, an image on each. What
is there already, from the same files and settings, is not made again. What cannot be refined is left out and named at
the end. Everything about it: docs/crf.md.
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Refines, and names what could not be."""
    from deeplab_tf.crf import DenseCRF, MapReader, refine_many

    reader = MapReader(
        FLAGS.label_confidence,
        FLAGS.num_classes,
        FLAGS.ignore_label,
        FLAGS.scores,
        FLAGS.align_corners,
        FLAGS.cam_threshold,
        FLAGS.cam_power,
    )
    refined = refine_many(
        FLAGS.input,
        FLAGS.maps,
        FLAGS.output_dir,
        DenseCRF.load(FLAGS.crf_file) if FLAGS.crf_file else DenseCRF(),
        reader,
        formats=FLAGS.format or ["masks"],
        cores=FLAGS.cores,
        beam_pipeline_options=FLAGS.beam_pipeline_options,
    )
    before = f", {refined.done_before} had been done before" if refined.done_before else ""
    print(f"refined    {refined.written} images in {refined.output_dir}{before}")
    flags.tell_left_out(refined.left_out)


if __name__ == "__main__":
    flags.run(main, "tools/refine.py", required=("input", "maps", "output_dir"), writes=("output_dir",))
