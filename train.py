"""Trains a DeepLab, evaluates it, draws what it sees; goes on where it was stopped.

python train.py --flagfile=demo.flags                          a small one, in minutes, on procedural images
python train.py --flagfile=voc.flags --model_dir=runs/voc      the paper's
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Prepares the data set where needed, trains, evaluates, draws overlays, exports where --export_dir says so."""
    from deeplab_tf import data, training
    from deeplab_tf.evaluation import evaluate_and_draw
    from deeplab_tf.inference import Segmenter

    flags.recipe()  # Values that do not go together are refused before TensorFlow is loaded.
    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    flags.check_same_run(model_dir)
    strategy = training.make_strategy(FLAGS.strategy, FLAGS.tpu)  # Before TensorFlow does anything else.
    directory = data.prepare(FLAGS.dataset, FLAGS.data_dir, FLAGS.raw_dir, **flags.prepare_options())
    result = train_model(model_dir, directory, strategy)
    if not training.is_chief(strategy):
        return

    segmenter = Segmenter.load(model_dir, crf=FLAGS.crf, **(flags.inference_options() | {"checkpoint": "latest"}))
    examples = data.evaluation_pipeline(directory, FLAGS.val_split)
    evaluation = evaluate_and_draw(
        segmenter, examples, model_dir, dataset=FLAGS.dataset, split=FLAGS.val_split, pictures=FLAGS.overlays
    )
    print(f"\n{evaluation.table()}\n")
    print(f"trained    {result.steps} steps, {result.seconds / 60:.1f} minutes since this start")
    print(f"evaluated  {evaluation.images} images of {FLAGS.dataset} {FLAGS.val_split}, {evaluation.seconds:.0f} s")
    print(f"written    {result.checkpoint}, evaluation.json and overlays/ in {model_dir}")
    if FLAGS.export_dir:
        from deeplab_tf.serving import export_saved_model

        print(f"exported   {export_saved_model(segmenter, FLAGS.export_dir)}, for TF Serving")
    print(f"next       tensorboard --logdir={model_dir}")
    print(f"           python predict.py --model_dir={model_dir} --input='photos/*.jpg' --output_dir=out")


def train_model(model_dir: pathlib.Path, directory: str, strategy):
    """Builds model, optimizer and pipelines from the flags and trains.

    Args:
        model_dir: folder of the run.
        directory: of the prepared data set.
        strategy: which devices to use.

    Returns:
        a `TrainingResult`.
    """
    import keras
    import tensorflow as tf

    from deeplab_tf import DeepLab, data, files, training, weights
    from deeplab_tf.evaluation.validation import validation
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.training.run import train

    info = data.info(FLAGS.dataset, FLAGS.data_dir)
    keras.utils.set_random_seed(FLAGS.seed)
    tf.config.optimizer.set_jit("autoclustering" if FLAGS.xla else False)
    with strategy.scope():
        model = DeepLab(num_classes=info.num_classes, dtype=FLAGS.precision, **flags.model_options())
        if FLAGS.initial_weights:
            report = weights.load(model, FLAGS.initial_weights, seed=FLAGS.seed)
            if training.is_chief(strategy):
                print(report)
        frozen = weights.freeze(model, FLAGS.freeze)
        if frozen and training.is_chief(strategy):
            print(f"frozen       {len(frozen)} layers: {frozen[0]} ... {frozen[-1]}")
        schedule = training.learning_rate_schedule(
            FLAGS.schedule, FLAGS.learning_rate, FLAGS.max_steps, step_size=FLAGS.step_size
        )
        optimizer = training.CaffeSGD(
            schedule,
            momentum=FLAGS.momentum,
            coupled_weight_decay=FLAGS.weight_decay,
            multipliers=training.caffe_multipliers(model, FLAGS.classifier_multiplier),
        )
        if FLAGS.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    segmenter = Segmenter(model, info=info)
    class_weights = None
    if FLAGS.class_weights == "balanced":
        labels = (example["label"] for example in data.evaluation_pipeline(directory, FLAGS.train_split))
        class_weights = training.balanced_class_weights(labels, info.num_classes, info.ignore_label)
    elif FLAGS.class_weights:
        class_weights = training.read_class_weights(FLAGS.class_weights, info.class_names)
    if training.is_chief(strategy):
        files.write_text(model_dir / flags.CONFIG_FILE, flags.flags_of_the_run())
        segmenter.save_description(model_dir)

    def batches(start_step: int, host: int, hosts: int):
        return data.training_pipeline(
            directory,
            FLAGS.train_split,
            batch_size=FLAGS.batch_size,
            crop_size=FLAGS.crop_size,
            scales=FLAGS.random_scale,
            mirror=FLAGS.mirror,
            seed=FLAGS.seed,
            start_step=start_step,
            num_shards=hosts,
            shard_index=host,
        )

    return train(
        model,
        optimizer,
        batches,
        model_dir=model_dir,
        strategy=strategy,
        max_steps=FLAGS.max_steps,
        batch_size=FLAGS.batch_size,
        accumulation_steps=FLAGS.accumulation_steps,
        class_weights=class_weights,
        hard_fraction=FLAGS.hard_fraction,
        steps_per_loop=FLAGS.steps_per_loop,
        checkpoint_every=FLAGS.checkpoint_every,
        max_checkpoints=FLAGS.max_checkpoints,
        eval_every=FLAGS.eval_every,
        validate=validation(
            segmenter,
            data.evaluation_pipeline(directory, FLAGS.val_split, limit=FLAGS.eval_limit),
            overlays=FLAGS.overlays,
        ),
        profile_steps=FLAGS.profile_steps,
    )


if __name__ == "__main__":
    flags.run(main, "train.py", required=("model_dir",), writes=("model_dir", "export_dir"))
