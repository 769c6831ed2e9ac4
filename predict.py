"""Segments your photographs, a video or what a camera sees: masks, overlays, probabilities, polygons, COCO annotations.

python predict.py --model_dir=runs/voc --input='photos/*.jpg' --output_dir=out
python predict.py --model_dir=runs/voc --input=photos --output_dir=out --crf        with the dense CRF as well
python predict.py --model_dir=runs/voc --input=photos --output_dir=out --format=masks,probabilities,polygons,coco
python predict.py --model_dir=runs/voc --input=street.mp4 --output_dir=out          an overlay video
python predict.py --model_dir=runs/voc --input=camera:0 --output_dir=out            until Ctrl-C, or --limit frames

python predict.py --model_dir=runs/voc --input=photos --output_dir=out --beam_pipeline_options=runner=...

Stopped among photographs, the same command goes on: images that are done and have not changed since are left out.
Videos and cameras need OpenCV: pip install -e '.[video]'. Everything about it: docs/predict.md.
"""

import pathlib

from deeplab_tf import files, flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Segments what --input names."""
    from deeplab_tf.inference.frames import is_video

    (predict_frames if is_video(FLAGS.input) else predict_photographs)()


def predict_photographs() -> None:
    """Segments images, and says how many and what could not be read."""
    from deeplab_tf.pictures import find_images

    inputs, formats = find_images(FLAGS.input)[: FLAGS.limit], FLAGS.format or ("masks", "overlays")
    files.check_folder(output_dir(), "--output_dir")
    from deeplab_tf.inference.predicting import predict  # After the checks: it imports TensorFlow.

    made = predict(load_segmenter(), inputs, output_dir(), formats, beam_pipeline_options=FLAGS.beam_pipeline_options)
    before = f", {made.done_before} had been done before" if made.done_before else ""
    print(f"segmented  {made.images} of {len(inputs)} images in {made.seconds:.1f} s{before}")
    if made.images or made.done_before:
        print(f"written    {', '.join(formats)} to {made.output_dir}")
    if made.unreadable:
        number = "1 file" if len(made.unreadable) == 1 else f"{len(made.unreadable)} files"
        raise UserError(f"{number} left out: " + "; ".join(made.unreadable))
    if made.stopped:
        raise KeyboardInterrupt


def predict_frames() -> None:
    """Segments a video or what a camera sees, and says how fast."""
    if FLAGS.beam_pipeline_options is not None:
        raise UserError(f"--beam_pipeline_options: for photographs; {FLAGS.input} is a video or a camera")
    from deeplab_tf.inference.frames import open_capture
    from deeplab_tf.inference.video import predict_video

    open_capture(FLAGS.input).release()  # what cannot be opened is said before the network is loaded
    files.check_folder(output_dir(), "--output_dir")
    formats = FLAGS.format or ("overlays",)
    made = predict_video(load_segmenter(), FLAGS.input, output_dir(), formats, limit=FLAGS.limit)
    dropped = f", {made.dropped} dropped to keep up" if made.dropped else ""
    print(
        f"segmented  {made.frames} frames in {made.seconds:.1f} s, {made.frames / made.seconds:.1f} a second{dropped}"
    )
    if made.expected and made.frames < made.expected and not made.stopped:
        print(f"note       {FLAGS.input} says it has {made.expected} frames; the others could not be decoded")
    of_frames = ", ".join(form for form in formats if form != "overlays")
    places = ([str(made.overlay)] if made.overlay else []) + ([f"{of_frames} to {output_dir()}"] if of_frames else [])
    print(f"written    {'; '.join(places)}")


def load_segmenter():
    """The segmenter of --model_dir, with the flags of inference."""
    from deeplab_tf.inference import Segmenter

    return Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())


def output_dir() -> pathlib.Path:
    """--output_dir or its default."""
    return pathlib.Path(FLAGS.output_dir or pathlib.Path(FLAGS.model_dir) / "predictions").expanduser()


if __name__ == "__main__":
    flags.run(main, "predict.py", required=("model_dir", "input"), of_a_run=True)
