"""Makes a run of other people's weights, for predict.py, evaluate.py and export_saved_model.py; or a weight file.

python tools/convert_weights.py train2_iter_20000.caffemodel --model_dir=runs/released
python predict.py --model_dir=runs/released --input='photos/*.jpg' --output_dir=out --crf

The file tells its network: backbone, head, classes, scales, colours, average pool. Flags of the network that are given
win. A run has the classes of --dataset; without it 21 classes are taken as those of VOC 2012, and 19 as Cityscapes'.

python tools/convert_weights.py --list                                           public weight files by name
python tools/convert_weights.py deeplab_pytorch_vocaug --model_dir=runs/k        one of them, fetched if need be
"""

import pathlib
import sys

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS
from deeplab_tf.run_folder import is_run

_DATASETS_BY_CLASSES = {21: "voc2012", 19: "cityscapes"}


def main() -> None:
    """Loads --initial_weights, writes --output and, where --model_dir is given, a run; or lists the catalogue."""
    if FLAGS.list:
        from deeplab_tf import weights

        print(weights.catalogue.as_text())
        print(f"\nfolder       {weights.catalogue.folder(FLAGS.weights_dir)}")
        return
    if not FLAGS.initial_weights:
        raise UserError("--initial_weights is missing: give a file or a name; --list shows the names")
    if not FLAGS.output and not FLAGS.model_dir:
        raise UserError("nothing to write: give --model_dir=runs/x for a run, or --output=x.weights.h5, or both")
    if FLAGS.model_dir and is_run(FLAGS.model_dir):
        raise UserError(f"--model_dir={FLAGS.model_dir} holds a run already; give another folder")
    from deeplab_tf import DeepLab, weights

    given = {name: value for name, value in flags.model_options().items() if _is_given(name)}
    options = {"weights_dir": FLAGS.weights_dir, "key": FLAGS.weights_key}
    source = weights.examine(FLAGS.initial_weights, given.get("backbone"), **options)
    arguments = source.network | given
    needed = [name for name in ("backbone", "head") if name not in arguments]
    if needed:
        raise UserError(
            f"{FLAGS.initial_weights} ({source.kind}) does not tell its {' and '.join(needed)}: give "
            + ", ".join(f"--{name}" for name in needed)
        )
    info = _classes(arguments.get("num_classes"), source.kind)
    model = DeepLab(**{"num_classes": info.num_classes if info else None} | arguments)
    report = weights.load(model, FLAGS.initial_weights, seed=FLAGS.seed, overrule=tuple(given), **options)
    if FLAGS.model_dir and report.classes != info.num_classes:
        raise UserError(f"{FLAGS.initial_weights} has no classifier for the head {model.head}; give --output alone")
    print(f"network      {', '.join(f'{name}={value}' for name, value in arguments.items())}")
    print(report)
    if FLAGS.output:
        weights.save(model, FLAGS.output)
        print(f"written      {FLAGS.output}, for --initial_weights")
    if FLAGS.model_dir:
        _write_run(model, info, source)


def _is_given(name: str) -> bool:
    return FLAGS[name].present > 0


def _classes(num_classes: int | None, kind: str):
    """The data set whose classes a run has; None where only a weight file is written and none is needed."""
    from deeplab_tf import data, weights

    entry = weights.catalogue.get(FLAGS.initial_weights)
    named = entry.classes if entry else _DATASETS_BY_CLASSES.get(num_classes)
    name = FLAGS.dataset if _is_given("dataset") else named
    if not FLAGS.model_dir and num_classes is not None:
        return None
    if not name:
        found = f"a classifier for {num_classes} classes" if num_classes else "no classifier"
        raise UserError(
            f"{FLAGS.initial_weights} ({kind}) has {found}: give --dataset, the data set whose classes they are"
        )
    info = data.info(name, FLAGS.data_dir)
    if num_classes not in (None, info.num_classes):
        raise UserError(
            f"{FLAGS.initial_weights} has a classifier for {num_classes} classes, --dataset={name} has "
            f"{info.num_classes}: a run needs the data set that it was trained on; or give --output alone"
        )
    return info


def _write_run(model, info, source) -> None:
    """The folder of a run: the network, its classes, and the CRF that was published with it."""
    import dataclasses
    import shlex

    from deeplab_tf import training
    from deeplab_tf.crf import DenseCRF
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.run_folder import CRF_FILE

    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    of_the_network = ("backbone", "head", "scales", "output_stride", "average_pool")
    recipe = dataclasses.replace(flags.recipe(), **{name: getattr(model, name) for name in of_the_network})
    training.write_config(model_dir, FLAGS.data_dir, info.name, recipe)
    Segmenter(model, info=info).save(model_dir)
    print(f"written      {model_dir}, classes of {info.name}")
    if source.crf:
        DenseCRF(**source.crf).save(model_dir / CRF_FILE)
        print(f"written      {model_dir / CRF_FILE}: the CRF of the release of this network")
    run = shlex.quote(f"--model_dir={model_dir}")
    print(f"next         python predict.py {run} --input='photos/*.jpg' --output_dir=out --crf")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--initial_weights={sys.argv[1]}"
    flags.run(main, "tools/convert_weights.py", writes=("model_dir",))
