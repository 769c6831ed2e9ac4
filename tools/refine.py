"""Refines the results of your own network with the dense CRF: a folder of images and a folder of maps in, masks out.

python tools/refine.py --input=images --maps=probabilities --output_dir=refined
python tools/refine.py --input=images --maps=masks --label_confidence=0.6 --output_dir=refined
python tools/refine.py --input=images --maps=probabilities --crf_file=runs/voc/crf.json --output_dir=refined

A map has the stem and the size of its image: probabilities, .npy or .npz, float [H, W, C] or [C, H, W], that sum to 1
over the classes (a softmax output); or labels, .png with a class number a pixel, 255 for none. The masks are indexed
PNGs. What cannot be refined is left out and named at the end.
"""

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Refines, and names what could not be."""
    from deeplab_tf.crf import DenseCRF
    from deeplab_tf.crf.refining import refine_folder

    crf = DenseCRF.load(FLAGS.crf_file) if FLAGS.crf_file else DenseCRF()
    failed = []
    written = refine_folder(
        FLAGS.input, FLAGS.maps, FLAGS.output_dir, crf, confidence=FLAGS.label_confidence, on_error=failed.append
    )
    print(f"written    {written} masks in {FLAGS.output_dir}")
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(f"left out {failed[0]}{more}")


if __name__ == "__main__":
    flags.run(main, "tools/refine.py", required=("input", "maps", "output_dir"), writes=("output_dir",))
