"""Trains a DeepLab, evaluates it and draws what it sees; resumes an interrupted run.

python train.py --flagfile=demo.flags                          a small one, in minutes, on procedural images
python train.py --flagfile=voc.flags --model_dir=runs/voc      the paper's
"""

import pathlib
import shlex

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS
from deeplab_tf.run_folder import evaluation_files, evaluation_name


def main() -> None:
    """Prepares the data set where needed, trains, evaluates, draws overlays, exports where --export_dir says so."""
    recipe = flags.recipe()
    from deeplab_tf import data, training
    from deeplab_tf.evaluation import evaluate_and_draw
    from deeplab_tf.inference import Segmenter

    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    training.check_same_run(model_dir, recipe, FLAGS.dataset)
    strategy = training.make_strategy(recipe.strategy, recipe.tpu)  # Before TensorFlow does anything else.
    directory = data.prepare(FLAGS.dataset, FLAGS.data_dir, FLAGS.raw_dir, **flags.prepare_options())
    result = training.train(model_dir, directory, recipe, strategy=strategy)
    if not training.is_chief(strategy):
        return

    segmenter = Segmenter.load(model_dir, crf=FLAGS.crf, **recipe.inference_options())
    examples = data.evaluation_pipeline(directory, recipe.val_split)
    name = evaluation_name(changed=flags.changed_of_the_run(model_dir))
    evaluation = evaluate_and_draw(
        segmenter,
        examples,
        model_dir,
        dataset=FLAGS.dataset,
        split=recipe.val_split,
        name=name,
        pictures=recipe.overlays,
    )
    print(f"\n{evaluation.table()}\n")
    early = f" of {recipe.max_steps}, ended by --patience" if result.steps < recipe.max_steps else ""
    print(f"trained    {result.steps} steps{early}, {result.seconds / 60:.1f} minutes since this start")
    print(f"evaluated  {evaluation.images} images of {FLAGS.dataset} {recipe.val_split}, {evaluation.seconds:.0f} s")
    written = evaluation_files(name)
    print(f"written    {result.checkpoint}, {written.figures} and {written.overlays}/ in {model_dir}")
    best = pathlib.Path(result.best_checkpoint or result.checkpoint).name
    choice = " --checkpoint=best" if best != pathlib.Path(result.checkpoint).name else ""
    if result.best_checkpoint:
        advice = f": add{choice}" if choice else ", the last one"
        print(f"best       {best}, mean IoU {100 * result.best_mean_iou:.2f} in validation{advice}")
    if FLAGS.export_dir:
        from deeplab_tf.serving import export_saved_model

        print(f"exported   {export_saved_model(segmenter, FLAGS.export_dir)}, for TF Serving")
    folder = shlex.quote(str(model_dir))
    print(f"next       tensorboard --logdir={folder}")
    print(f"           python predict.py --model_dir={folder}{choice} --input='photos/*.jpg' --output_dir=out")


if __name__ == "__main__":
    flags.run(main, "train.py", required=("model_dir",), writes=("model_dir", "export_dir"))
