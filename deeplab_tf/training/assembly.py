"""`train`: from a prepared data set and a recipe to a trained run."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import time
from collections.abc import Callable, Mapping

import keras
import orbit
import tensorflow as tf

from deeplab_tf import model_card, run_folder, weights
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.data import catalogue, pipeline
from deeplab_tf.data.train_masks import TrainMasks, prepare_train_masks
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation.validation import make_validate
from deeplab_tf.inference import Segmenter
from deeplab_tf.models import DeepLab
from deeplab_tf.training import loop
from deeplab_tf.training.averaging import WeightAverage
from deeplab_tf.training.checkpoints import Checkpoints
from deeplab_tf.training.class_weights import balanced_class_weights, read_class_weights
from deeplab_tf.training.config import check_same_run, write_config
from deeplab_tf.training.diagnosis import Watch
from deeplab_tf.training.distribution import check_same_step, distributed, is_chief, make_strategy
from deeplab_tf.training.optimizer import CaffeSGD, caffe_multipliers
from deeplab_tf.training.recipe import Recipe
from deeplab_tf.training.schedules import learning_rate_schedule

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Result of `train`.

    Attributes:
        steps: updates made in all, those of earlier starts included.
        seconds: of this start.
        validation: the scalars of the last validation, by name.
        checkpoint: path of the last checkpoint, without suffix.
        best_checkpoint: path of the one with the highest validation mean IoU.
        best_mean_iou: that mean IoU, in [0, 1].
    """

    steps: int
    seconds: float
    validation: dict[str, float]
    checkpoint: str
    best_checkpoint: str | None
    best_mean_iou: float | None


def train(
    model_dir: str | os.PathLike,
    directory: str | os.PathLike,
    recipe: Recipe | None = None,
    *,
    strategy: tf.distribute.Strategy | None = None,
    on_loop: Callable[[int, Mapping[str, float]], None] | None = None,
) -> TrainingResult:
    """Trains a DeepLab, or goes on from the last readable checkpoint in `model_dir`.

    Stopped at any moment and started again with the same arguments, the run ends as one that was never stopped: the
    weights, the optimizer, the place in the data, everything drawn at random, the validations and best/.

    Args:
        model_dir: folder of the run, shared by all hosts; see `deeplab_tf.run_folder`.
        directory: a prepared data set (`deeplab_tf.data.prepare` or `prepared_directory`).
        recipe: how to train; None: `Recipe()`, the paper's ResNet-101.
        strategy: devices and hosts; None: those that the recipe names. For several hosts, make it with `make_strategy`
            before anything else of TensorFlow runs.
        on_loop: called after every `steps_per_loop` updates with the step and the scalars that TensorBoard gets.

    Returns:
        the result; `Segmenter.load(model_dir)` is the trained segmenter.

    Raises:
        UserError: the folder holds another run or is being trained, the batch does not divide evenly, the loss
            diverged, the disk is full.
        Stopped: SIGTERM or Ctrl-C came; the state is saved.

    Example:
        >>> directory = deeplab_tf.data.prepare("shapes", "tensorflow_datasets")
        >>> recipe = Recipe(backbone="resnet_tiny", head="aspp_s", scales=(1,), crop_size=129, max_steps=800)
        >>> train("runs/mine", directory, recipe)
    """
    recipe = recipe or Recipe()
    strategy = strategy or make_strategy(recipe.strategy, recipe.tpu)
    model_dir, info = pathlib.Path(model_dir).expanduser(), catalogue.read_info(directory)
    check_same_run(model_dir, recipe, info.name)
    _check_division(recipe, strategy.num_replicas_in_sync)
    with run_folder.locked(model_dir) if is_chief(strategy) else contextlib.nullcontext():
        try:
            return _train(model_dir, directory, info, recipe, strategy, on_loop)
        except OSError as error:
            if error.errno not in _CANNOT_WRITE:
                raise
            raise UserError(f"{error.filename or model_dir} cannot be written: {error.strerror}; make room") from None


def _train(model_dir, directory, info, recipe: Recipe, strategy, on_loop) -> TrainingResult:
    started = time.monotonic()
    chief = is_chief(strategy)
    if chief:
        run_folder.remove_remains(model_dir)
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        model = _model(model_dir, info.num_classes, recipe, chief)
        optimizer = build_optimizer(model, recipe)
        step = orbit.utils.create_global_step()
        averaged = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay else None
        # "model" is what everyone reads from a checkpoint: the average where there is one.
        kept = averaged.model if averaged else model
        both = {"model": kept} | ({"training_model": model} if averaged else {})
        checkpoints = Checkpoints(
            model_dir,
            tf.train.Checkpoint(**both, optimizer=optimizer, step=step),
            step,
            every=recipe.checkpoint_every,
            keep=recipe.max_checkpoints,
            chief=chief,
        )
        checkpoints.restore()
    first_step = int(step.numpy())
    check_same_step(first_step, strategy, model_dir)
    masks = _train_masks(model_dir, directory, recipe, chief)

    segmenter = Segmenter(kept, info=info, **recipe.inference_options())
    segmenter.train_masks = masks and masks.description
    examples = pipeline.evaluation_pipeline(directory, recipe.val_split, limit=recipe.eval_limit)
    if chief:
        write_config(model_dir, _data_dir(directory, info.name), info.name, recipe)
        segmenter.save_description(model_dir)
    trainer = loop.DeepLabTrainer(
        model,
        optimizer,
        distributed(_batches(directory, recipe, first_step, masks), recipe.batch_size, strategy),
        step=step,
        strategy=strategy,
        recipe=recipe,
        class_weights=_class_weights(directory, info, recipe, masks),
        ignore_label=info.ignore_label,
        averaged=averaged,
    )
    counted = None if masks else catalogue.read_class_counts(directory, recipe.train_split)
    on_cpu = not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
    watch = Watch(info.class_names, counted, recipe.max_steps, on_cpu, recipe.eval_every)
    validate = make_validate(
        segmenter,
        examples,
        overlays=recipe.overlays,
        on_evaluation=lambda found: watch.on_validation(found.network.counts, found.network.mean_iou, found.seconds),
    )

    def look(step: int, scalars: Mapping[str, float]) -> None:
        if chief:
            watch.on_loop(step, scalars)
        if on_loop:
            on_loop(step, scalars)

    loop.run(trainer, checkpoints, validate, model_dir, look)
    checkpoints.clean_up()
    if chief:
        model_card.update(model_dir)
    return TrainingResult(
        steps=int(step.numpy()),
        seconds=time.monotonic() - started,
        validation=dict(checkpoints.validations.get(int(step.numpy()), {})),
        checkpoint=checkpoints.latest,
        best_checkpoint=run_folder.best_checkpoint(model_dir),
        best_mean_iou=run_folder.read_best(model_dir).get("mean_iou"),
    )


def _train_masks(model_dir: pathlib.Path, directory, recipe: Recipe, chief: bool) -> TrainMasks | None:
    """The masks that replace those of the training split; the same ones for the whole of a run."""
    if not recipe.train_masks:
        return None
    masks = prepare_train_masks(directory, recipe.train_split, recipe.train_masks, missing=recipe.train_masks_missing)
    if run_folder.checkpoints(model_dir) and run_folder.is_run(model_dir):
        then = run_folder.read_description(model_dir).get("train_masks", {}).get("fingerprint")
        if then != masks.description["fingerprint"]:
            raise UserError(
                f"--train_masks={recipe.train_masks}: the masks there have changed since the run in {model_dir} began; "
                "give another --model_dir to train on these"
            )
    if chief:
        print(masks)
    return masks


def _model(model_dir: pathlib.Path, num_classes: int, recipe: Recipe, chief: bool) -> DeepLab:
    """The network: as the run describes it, or a new one with its initial weights.

    A run that resumes does not need the initial weights, whose files may be gone.
    """
    report = None
    if run_folder.checkpoints(model_dir) and run_folder.is_run(model_dir):
        model = DeepLab.of_run(model_dir)
    else:
        model, report = initial_model(recipe, num_classes)
    frozen = weights.freeze(model, recipe.freeze)
    if chief and report:
        print(report)
    if chief and frozen:
        print(f"frozen       {len(frozen)} layers: {frozen[0]} ... {frozen[-1]}")
    return model


def initial_model(recipe: Recipe, num_classes: int) -> tuple[DeepLab, weights.LoadReport | None]:
    """The network that a recipe names with its initial weights, and the report of these; None without any."""
    model = build_model(recipe, num_classes)
    if not recipe.initial_weights:
        return model, None
    overrule = () if recipe.average_pool is None else ("average_pool",)
    options = _weight_options(recipe)
    return model, weights.load(model, recipe.initial_weights, seed=recipe.seed, overrule=overrule, **options)


def build_model(recipe: Recipe, num_classes: int) -> DeepLab:
    """The network that a recipe names, as its initial weights need it, with fresh weights."""
    names = ("backbone", "head", "output_stride", "scales", "atrous", "dropout")
    options = {name: getattr(recipe, name) for name in names}
    options["batch_norm"] = None if recipe.batch_norm == "auto" else recipe.batch_norm
    options |= weights.arguments_for(
        recipe.initial_weights, recipe.backbone, recipe.head, recipe.average_pool, **_weight_options(recipe)
    )
    return DeepLab(num_classes=num_classes, dtype=recipe.precision, **options)


def _weight_options(recipe: Recipe) -> dict[str, str | None]:
    return {"weights_dir": recipe.weights_dir, "key": recipe.weights_key}


def build_optimizer(model: DeepLab, recipe: Recipe) -> keras.optimizers.Optimizer:
    """The optimizer that a recipe names, with its slots, for a model."""
    schedule = learning_rate_schedule(
        recipe.schedule, recipe.learning_rate, recipe.max_steps, step_size=recipe.step_size
    )
    optimizer = CaffeSGD(
        schedule,
        momentum=recipe.momentum,
        coupled_weight_decay=recipe.weight_decay,
        multipliers=caffe_multipliers(model, recipe.classifier_multiplier, recipe.fast_layers),
        global_clipnorm=recipe.clip_norm,
    )
    if recipe.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _batches(
    directory, recipe: Recipe, first_step: int, masks: TrainMasks | None
) -> Callable[[int, int], tf.data.Dataset]:
    """(host, number of hosts) -> this host's part of the batches from `first_step` on."""
    return lambda host, hosts: pipeline.training_pipeline(
        directory,
        recipe.train_split,
        batch_size=recipe.batch_size,
        crop_size=recipe.crop_size,
        scales=tuple(recipe.input_scale * scale for scale in recipe.random_scale),
        mirror=recipe.mirror,
        rotate_90=recipe.rotate_90,
        vertical_flip=recipe.vertical_flip,
        color_jitter=recipe.color_jitter,
        seed=recipe.seed,
        start_step=first_step,
        masks=masks,
        num_shards=hosts,
        shard_index=host,
    )


def _class_weights(directory, info: DatasetInfo, recipe: Recipe, masks: TrainMasks | None) -> list[float] | None:
    if recipe.class_weights == "balanced":
        labels = pipeline.label_pipeline(directory, recipe.train_split, masks)
        return balanced_class_weights(labels, info.num_classes, info.ignore_label)
    return read_class_weights(recipe.class_weights, info.class_names) if recipe.class_weights else None


def _data_dir(directory: str | os.PathLike, dataset: str) -> pathlib.Path:
    """The folder of prepared data sets in which `<dataset>/<version>` is the directory."""
    return pathlib.Path(os.path.abspath(directory)).parents[dataset.count("/") + 1]


def _check_division(recipe: Recipe, replicas: int) -> None:
    if recipe.batch_size % (replicas * recipe.accumulation_steps):
        raise UserError(
            f"--batch_size={recipe.batch_size} cannot be shared evenly by {replicas} replicas with "
            f"--accumulation_steps={recipe.accumulation_steps}; expected a multiple of "
            f"{replicas * recipe.accumulation_steps}"
        )
