"""Converts weights of other makers, or a checkpoint: into a weight file, or into a run for the other commands.

python tools/convert_weights.py --flagfile=voc.flags --initial_weights=x.caffemodel --model_dir=runs/released
python tools/convert_weights.py --backbone=vgg16 --head=large_fov --initial_weights=x.caffemodel --output=x.weights.h5

The network is that of --backbone and --head. A run also needs the --dataset that the classifier was trained on, whose
classes have names and colours; then predict.py, evaluate.py and export_saved_model.py take the folder like one of
train.py.
"""

import pathlib
import shlex

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Loads --initial_weights, writes --output and, where --model_dir is given, a run."""
    from deeplab_tf import data, training, weights
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.run_folder import DESCRIPTION_FILE

    if not FLAGS.output and not FLAGS.model_dir:
        raise UserError("nothing to write: give --output=x.weights.h5, or --model_dir for a run, or both")
    model_dir = pathlib.Path(FLAGS.model_dir).expanduser() if FLAGS.model_dir else None
    if model_dir and (model_dir / DESCRIPTION_FILE).exists():
        raise UserError(f"--model_dir={model_dir} holds a run already; give another folder")

    info = data.info(FLAGS.dataset, FLAGS.data_dir)
    model = new_model(info.num_classes)
    report = weights.load(model, FLAGS.initial_weights, seed=FLAGS.seed)
    if model_dir and report.classes != info.num_classes:
        found = f"a classifier for {report.classes} classes" if report.classes else f"no classifier for {FLAGS.head}"
        raise UserError(
            f"{FLAGS.initial_weights} has {found}, --dataset={FLAGS.dataset} has {info.num_classes} classes: a run "
            "needs the data set that it was trained on; or give --output alone"
        )
    if report.classes not in (None, info.num_classes):  # The file keeps the classifier, whatever its classes are.
        model = new_model(report.classes)
        report = weights.load(model, FLAGS.initial_weights, seed=FLAGS.seed)
    print(report)

    if FLAGS.output:
        weights.save(model, FLAGS.output)
        print(
            f"written      {FLAGS.output}, for --initial_weights with --backbone={FLAGS.backbone} --head={FLAGS.head}"
        )
    if model_dir:
        training.write_config(model_dir, FLAGS.data_dir, FLAGS.dataset, flags.recipe())
        Segmenter(model, info=info).save(model_dir)
        print(f"written      {model_dir}, classes of {info.name}")
        run = shlex.quote(f"--model_dir={model_dir}")
        print(f"next         python predict.py {run} --input='photos/*.jpg' --output_dir=out")


def new_model(num_classes: int):
    """The network that the flags describe."""
    from deeplab_tf import DeepLab

    return DeepLab(num_classes=num_classes, **flags.model_options())


if __name__ == "__main__":
    flags.run(main, "tools/convert_weights.py", required=("initial_weights",), writes=("model_dir",))
