"""Exports a trained model for TF Serving: a numbered version of a SavedModel; on request also ONNX and LiteRT.

python export_saved_model.py --model_dir=runs/voc --export_dir=exported
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --crf       with the dense CRF in the graph
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --outputs=labels,confidence
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --tile_size=513       for large images
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --export_precision=bfloat16
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --formats=onnx,onnx_int8        for CPU servers
python export_saved_model.py --model_dir=runs/voc --export_dir=exported --formats=litert_int8 --litert_size=513,513
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Exports a checkpoint of --model_dir."""
    if len(FLAGS.litert_size) != 2:
        raise UserError(f"--litert_size={','.join(map(str, FLAGS.litert_size))}: expected height,width in pixels")
    others = [name for name in FLAGS.formats if name != "saved_model"]
    for name in ("crf", "tile_size"):
        if others and FLAGS[name].value:
            raise UserError(
                f"--formats={','.join(others)} cannot hold what --{name} asks for; export it with "
                f"{'--nocrf' if name == 'crf' else f'--{name}='}"
            )

    from deeplab_tf import serving
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.serving.warmup import WARMUP_FILE

    segmenter = Segmenter.load(FLAGS.model_dir, crf=FLAGS.crf, **flags.inference_options())
    folder = pathlib.Path(FLAGS.export_dir).expanduser()
    if "saved_model" in FLAGS.formats:
        version = serving.export_saved_model(
            segmenter, folder, outputs=FLAGS.outputs, precision=FLAGS.export_precision, max_pixels=FLAGS.max_pixels
        )
        print(f"exported to {version}; signatures: serve_png (files in, masks out), serve_bytes, serving_default")
        if not (version / WARMUP_FILE).is_file():
            print("no warm-up requests in it: tensorflow-serving-api is missing; pip install -e '.[serving]'")
    if others:
        export_others(segmenter, folder, others)


def export_others(segmenter, folder: pathlib.Path, formats: list[str]) -> None:
    """Writes ONNX and LiteRT models, and their model card."""
    from deeplab_tf import data, serving
    from deeplab_tf.serving import calibration
    from deeplab_tf.serving.formats import FILES

    images = None
    if any(name.endswith("int8") for name in formats) and FLAGS.calibration_images:
        images = calibration.from_folder(FLAGS.calibration_images)
    elif any(name.endswith("int8") for name in formats):
        directory = data.prepared_directory(FLAGS.dataset, FLAGS.data_dir)
        images = calibration.from_data_set(directory, FLAGS.train_split)
    height, width = FLAGS.litert_size
    for name in formats:
        form, _, precision = name.partition("_")
        options = {"outputs": FLAGS.outputs, "calibration": images if precision == "int8" else None}
        if form == "onnx":
            path = serving.export_onnx(segmenter, folder / FILES[name], **options)
            print(f"exported to {path}; input: images, uint8, of any size")
        else:
            options |= {"image_size": (height, width), "precision": precision or "float32"}
            path = serving.export_litert(segmenter, folder / FILES[name], **options)
            print(f"exported to {path}; input: images, uint8 [1, {height}, {width}, 3]")
    serving.write_card(folder, segmenter, {"files": [FILES[name] for name in formats], "outputs": list(FLAGS.outputs)})


if __name__ == "__main__":
    flags.run(
        main, "export_saved_model.py", required=("model_dir", "export_dir"), of_a_run=True, writes=("export_dir",)
    )
