"""The flags of every command, defined once, so that one flagfile serves them all.

`train.py` writes the flags it ran with to `<model_dir>/config.flags`; the other commands read them from there before
their own command line, so that what is typed wins.
"""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from deeplab_tf.errors import UserError, extras_named

# TensorFlow's own log, set before anything imports it: warnings and errors; on a machine without an NVIDIA driver not
# even errors, since the lack of one is reported as such. Python's exceptions are not concerned.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if os.path.exists("/dev/nvidiactl") else "3")

FLAGS = flags.FLAGS
CONFIG_FILE = "config.flags"

# Names of the flags by topic, in the order of their definition; `run` shows a command's own topics in its --help.
TOPICS: dict[str, list[str]] = {}

_MOST_NAMED = 100  # of what a command has left out


def _define(topic: str, define: Callable, name: str, default, help_text: str, *args, **kwargs) -> None:
    define(name, default, *args, help_text, **kwargs)
    TOPICS.setdefault(topic, []).append(name)


def _string(topic, name, default, help_text):
    _define(topic, flags.DEFINE_string, name, default, help_text)


def _integer(topic, name, default, help_text, lower_bound=None):
    _define(topic, flags.DEFINE_integer, name, default, help_text, lower_bound=lower_bound)


def _float(topic, name, default, help_text, lower_bound=None):
    _define(topic, flags.DEFINE_float, name, default, help_text, lower_bound=lower_bound)


def _bool(topic, name, default, help_text):
    _define(topic, flags.DEFINE_bool, name, default, help_text)


def _list(topic, name, default, help_text):
    _define(topic, flags.DEFINE_list, name, default, help_text)


def _enum(topic, name, default, choices, help_text):
    _define(topic, flags.DEFINE_enum, name, default, help_text, choices)


_string("run", "model_dir", None, "Folder of a run: checkpoints, config.flags, TensorBoard events, results.")

_string(
    "data",
    "dataset",
    "shapes",
    "Name of the data set: a folder under datasets/; your own: image_folder/<a name you choose>.",
)
_string("data", "data_dir", "~/tensorflow_datasets", "Where prepared data sets (TFRecords) lie.")
_string("data", "raw_dir", None, "Where the raw files of the data set lie, as downloaded or as you made them.")
_string("data", "train_split", "train", "Split to train on.")
_string("data", "val_split", "val", "Split to validate and evaluate on.")

_string(
    "prepare", "class_names", None, "image_folder: text file with one class name a line, in the order of the labels."
)
_string("prepare", "color_table", None, "image_folder: text file with lines 'R G B name', for colour masks.")
_string("prepare", "train_list", None, "image_folder: text file with the stems of the training images, one a line.")
_string("prepare", "val_list", None, "image_folder: text file with the stems of the validation images, one a line.")
_float("prepare", "val_fraction", None, "image_folder: fraction of the images to validate on, without file lists.", 0.0)

_enum("prepare", "on_error", "stop", ["stop", "skip"], "A bad raw file: stop, or leave it out and list it.")
_bool("prepare", "download", False, "Fetch the raw files first, where their authors allow it.")

_string(
    "conversion",
    "beam_pipeline_options",
    None,
    "Convert on Apache Beam, for data too large for one machine; its options, separated by commas, such as "
    "'runner=DirectRunner,direct_num_workers=4'.",
)
_bool("conversion", "summarize", False, "Print counts, sizes and class frequencies, and draw a contact sheet.")
_bool("conversion", "overwrite", False, "Prepare again what is prepared already.")

_enum("model", "backbone", "resnet101", ["vgg16", "resnet50", "resnet101", "resnet_tiny"], "The feature extractor.")
_string("model", "head", "aspp_l", "The classifier: aspp_l, aspp_s, large_fov; linear (ResNet); fc_7x7_r4 ... (VGG).")
_integer("model", "output_stride", 8, "Input pixels per score of the network: 8, 16 or 32.", 1)
_list("model", "scales", ["0.5", "0.75", "1.0"], "Multi-scale inputs, fused by maximum; 1.0 is single-scale.")
_enum("model", "atrous", "dilation", ["dilation", "deinterlace"], "How atrous convolution is computed (Sec. 3.1).")
_enum(
    "model",
    "batch_norm",
    "auto",
    ["auto", "frozen", "trainable", "sync"],
    "Batch normalisation: frozen (for pretrained weights), trainable, or synchronised over the replicas; "
    "auto: frozen, but trainable in resnet_tiny.",
)
_bool("model", "average_pool", False, "VGG-16: a 3x3 average pool after pool5, as in the LargeFOV release of 2015.")
_float("model", "dropout", 0.5, "VGG-16: dropout after fc6 and fc7.", 0.0)
_string("model", "initial_weights", None, "Weights to start from: imagenet, a file, or a folder of checkpoints.")
_string("model", "freeze", "none", "Layers that are not trained: none, backbone, or a regular expression of names.")

_integer("training", "crop_size", 321, "Height and width of a training crop, pixels; 8k+1 wastes nothing.", 9)
_integer("training", "batch_size", 10, "Images per update, over all devices and micro-batches.", 1)
_integer("training", "accumulation_steps", 1, "Micro-batches that one update is made of, to save memory.", 1)
_integer("training", "max_steps", 20_000, "Updates of the whole training.", 1)
_float("training", "learning_rate", 2.5e-4, "Learning rate at the start: 2.5e-4 for ResNet-101, 1e-3 for VGG-16.", 0.0)
_enum("training", "schedule", "poly", ["poly", "step"], "poly: lr (1-step/max)^0.9; step: times 0.1 every step_size.")
_integer("training", "step_size", 2_000, "Updates between the drops of the step schedule.", 1)
_float("training", "momentum", 0.9, "Momentum of SGD.", 0.0)
_float("training", "weight_decay", 5e-4, "Weight decay of the kernels, added to the gradient.", 0.0)
_float(
    "training", "classifier_multiplier", 10.0, "Learning rate of the classifier's kernel; its bias gets double.", 0.0
)
_list("training", "random_scale", ["0.5", "1.5"], "Random scaling: two numbers are a range; three or more, a choice.")
_bool("training", "mirror", True, "Mirror training images at random.")
_integer("training", "seed", 0, "Seed of everything random: initial weights, order, augmentation.", 0)
_enum(
    "training",
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "Devices to train on: auto takes all local GPUs, and all hosts where TF_CONFIG names a cluster.",
)
_string("training", "tpu", "local", "Name or address of the TPU of --strategy=tpu.")
_enum(
    "training",
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16"],
    "Arithmetic of the network; weights, score maps and loss stay in float32; mixed_float16 scales the loss. For "
    "export_saved_model.py also bfloat16: weights in 16 bits as well.",
)
_bool("training", "xla", False, "Compile the training step with XLA.")
_string("training", "class_weights", None, "Beyond the paper: balanced, or a file with one weight a line.")
_float("training", "hard_fraction", 1.0, "Beyond the paper: train on this fraction of the pixels, the hardest.", 0.0)
_integer("training", "steps_per_loop", 10, "Updates between two looks of the host: progress, scalars.", 1)
_integer("training", "eval_every", 1_000, "Updates between validations; 0: only at the end.", 0)
_integer("training", "eval_limit", None, "Validate on this many images during training; default: all.", 1)
_integer("training", "checkpoint_every", 500, "Updates between checkpoints.", 1)
_integer("training", "max_checkpoints", 3, "Checkpoints to keep.", 1)
_list("training", "profile_steps", None, "First and last update to profile for TensorBoard, such as 20,30.")
_integer("training", "overlays", 4, "Validation images to draw in TensorBoard at every validation.", 0)

_enum("evaluation", "checkpoint", "latest", ["latest", "best"], "The last one, or the best by validation mean IoU.")
_bool("evaluation", "crf", False, "Refine with the dense CRF as well (parameters: crf.json in the model_dir).")
_integer("evaluation", "limit", None, "Only the first images of the split, or of --input.", 1)
_list("evaluation", "eval_scales", None, "Scales of the network's input for inference; default: as in training.")
_bool("evaluation", "eval_mirror", False, "Average the scores of the image and of its mirror image.")
_integer(
    "evaluation", "tile_size", None, "Cut larger images into tiles of this height and width, pixels; saves memory.", 9
)
_integer("evaluation", "tile_overlap", 128, "Pixels by which neighbouring tiles overlap, blended there.", 1)

_string("evaluation", "report_dir", None, "Write a report with charts and pictures there: one page, index.html.")
_string("evaluation", "compare", None, "Folder of another run: say per class what changed, and if it may be noise.")
_string(
    "evaluation", "submission_dir", None, "Write masks for the server of VOC 2012 or Cityscapes there; see --val_split."
)

_string(
    "prediction",
    "input",
    None,
    "An image, a folder of images, a quoted glob, a video, or camera:0; tools/refine.py: a folder.",
)
_string("prediction", "output_dir", None, "Folder for what is made; default of predict.py: <model_dir>/predictions.")
_list(
    "prediction",
    "format",
    None,
    "What to write, one or more of: masks (indexed PNGs), overlays (pictures, or one video), probabilities (.npz), "
    "polygons (GeoJSON), coco (run lengths, one file). Default: masks,overlays; of a video or camera: overlays.",
)

_string("refinement", "maps", None, "Folder of probabilities (.npy, .npz) or label maps (.png), named as the images.")
_string(
    "refinement", "crf_file", None, "Parameters of the CRF, as tools/search_crf.py writes them; default: the paper's."
)
_float("refinement", "label_confidence", 0.7, "The probability that a label of a label map is right.", 0.0)

_string("scoring", "predictions", None, "Folder of masks to score (.png, ...), also in folders below.")
_string("scoring", "labels", None, "Folder of the true masks, named as the predictions.")
_string("scoring", "prediction_suffix", "", "What the names of predictions have at their end and the truths have not.")
_string("scoring", "label_suffix", "", "What the names of the truths have at their end, such as _gtFine_labelIds.")
_string("scoring", "prediction_ids", None, "Table of the values in predictions: cityscapes, or a file 'value class'.")
_string("scoring", "label_ids", None, "Table of the values in the truth: cityscapes, or a file 'value class'.")
_integer("scoring", "ignore_label", 255, "Value of the truth that does not count: pixels without a label.", 0)
_list("scoring", "classes", None, "Give means over these classes too: synthia16, synthia13, or names of classes.")
_string("scoring", "score_file", None, "JSON file for everything measured.")

_integer("cores", "cores", None, "Cores to use at most; default: all that the process may use.", 1)

_integer("reproduction", "table", None, "Number of a table of the paper: 1, 2, 3, 4, 6, 7 or 9.", 1)
_bool("reproduction", "dry_run", False, "Only say what is there, what is missing, and how long it would take here.")

_string("weights", "output", None, "Weight file to write, *.weights.h5.")

_string("export", "export_dir", None, "Folder of the SavedModel; every export adds a numbered version.")
_list(
    "export",
    "outputs",
    ["labels", "probabilities"],
    "What the served model returns: labels, probabilities, confidence (of the label).",
)
_list("export", "forms", ["saved_model"], "Forms to write: saved_model (for TF Serving), onnx, litert.")
_list("export", "litert_size", ["513", "513"], "Height and width of the images of the LiteRT model, pixels.")
_integer("export", "max_pixels", 1 << 24, "The served model refuses larger images, to save its memory.", 1)

# What may differ between two starts of one run: it changes where files lie, how often something is done, or on what
# machines, but not what is trained.
_MAY_CHANGE = frozenset(
    [
        *TOPICS["prepare"],
        *("data_dir", "raw_dir", "val_split", "strategy", "tpu", "accumulation_steps", "xla", "steps_per_loop"),
        *("eval_every", "eval_limit", "checkpoint_every", "max_checkpoints", "profile_steps", "overlays"),
    ]
)
# What describes one call of one command, not the run: left out of config.flags.
_NOT_OF_THE_RUN = frozenset(
    [
        "model_dir",
        *TOPICS["export"],
        *TOPICS["conversion"],
        *TOPICS["evaluation"],
        *TOPICS["prediction"],
        *TOPICS["reproduction"],
        *TOPICS["refinement"],
        *TOPICS["scoring"],
        *TOPICS["cores"],
        *TOPICS["weights"],
    ],
)


def run(main: Callable[[], None], topics: Sequence[str], required: Sequence[str] = ()) -> None:
    """Runs a command line: parses the flags, calls `main()`, turns a user's mistake into one line and exit status 1.

    Args:
        main: the command; reads `FLAGS`.
        topics: the topics of flags, or names of single flags, that the command uses; its --help shows these,
            --helpfull all.
        required: names of flags without which the command cannot run.
    """
    for topic in topics:
        for name in TOPICS.get(topic, [topic]):
            FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])

    def checked_main(arguments: Sequence[str]) -> None:
        try:
            if len(arguments) > 1:
                raise UserError(f"{arguments[1]!r} is no flag; flags start with --, see --help")
            for name in required:
                if FLAGS[name].value in (None, ""):
                    raise UserError(f"--{name} is missing: {FLAGS[name].help}")
            with extras_named(pathlib.Path(sys.argv[0]).name):
                main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    logging.set_verbosity(logging.WARNING)
    app.run(checked_main, argv=_with_config_of_the_run(sys.argv), flags_parser=_parse)


def tell_left_out(lines: Sequence[str]) -> None:
    """Names what a command has left out, on the standard error.

    Raises:
        UserError: something was left out, so that the exit status says so.
    """
    for line in lines[:_MOST_NAMED]:
        print(f"left out   {line}", file=sys.stderr)
    if lines:
        unnamed = f" ({len(lines) - _MOST_NAMED} of them not named here)" if len(lines) > _MOST_NAMED else ""
        raise UserError(f"{len(lines)} left out{unnamed}")


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags; a wrong one, also inside a flagfile, ends the command with one line."""
    try:
        return app.parse_flags_with_usage(list(arguments))
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _with_config_of_the_run(arguments: Sequence[str]) -> list[str]:
    """Puts `--flagfile=<model_dir>/config.flags` before the flags of the command line where the run has one.

    Training writes that file and does not read it: what it trains with is on its own command line.
    """
    arguments = list(arguments)
    if pathlib.Path(arguments[0]).name == "train.py":
        return arguments
    for position, argument in enumerate(arguments[1:], start=1):
        name, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "model_dir":
            value = value or (arguments[position + 1] if position + 1 < len(arguments) else "")
            config = pathlib.Path(value).expanduser() / CONFIG_FILE
            if value and config.is_file():
                return [arguments[0], f"--flagfile={config}", *arguments[1:]]
    return arguments


def flags_of_the_run() -> str:
    """The flags that describe the training run, one `--name=value` a line, as a flagfile."""
    lines = []
    for topic, names in TOPICS.items():
        flag_lines = [
            _serialized(name) for name in names if name not in _NOT_OF_THE_RUN and FLAGS[name].value is not None
        ]
        lines += [f"# {topic}", *flag_lines] if flag_lines else []
    return "\n".join(lines) + "\n"


def check_same_run(model_dir: pathlib.Path) -> None:
    """Refuses to go on in the folder of another run.

    Raises:
        UserError: `config.flags` there has other values for what is trained; the message names the flags.
    """
    config = model_dir / CONFIG_FILE
    if not config.is_file():
        return
    of_the_run = _by_name(config.read_text(encoding="utf-8"))
    now = _by_name(flags_of_the_run())
    different = [
        f"{now.get(name, f'--{name} not given')} (there: {of_the_run.get(name, 'not given')})"
        for name in sorted(of_the_run.keys() | now.keys())
        if name in FLAGS and name not in _MAY_CHANGE and of_the_run.get(name) != now.get(name)
    ]
    if different:
        raise UserError(
            f"--model_dir={model_dir} holds a run with other flags: {', '.join(different)}; give another "
            "--model_dir, or the flags of that run to go on with it"
        )


def _by_name(flagfile: str) -> dict[str, str]:
    """The lines of a flagfile by the names of their flags."""
    lines = [line for line in flagfile.splitlines() if line.startswith("--")]
    names = [line[2:].partition("=")[0] for line in lines]
    return {
        name.removeprefix("no") if name not in FLAGS else name: line for name, line in zip(names, lines, strict=True)
    }


def _serialized(name: str) -> str:
    """`--name=value`; the paths of existing files made absolute, for commands that run elsewhere."""
    value = FLAGS[name].value
    if isinstance(value, str) and os.sep in value and os.path.exists(os.path.expanduser(value)):
        return f"--{name}={os.path.abspath(os.path.expanduser(value))}"
    return FLAGS[name].serialize()


def prepare_options() -> dict[str, object]:
    """The flags of `deeplab_tf.data.prepare` by name; None where a flag is not given."""
    return {name: FLAGS[name].value for name in TOPICS["prepare"]}


def inference_options() -> dict[str, object]:
    """The flags of inference as `Segmenter.load` takes them."""
    return {
        "checkpoint": FLAGS.checkpoint,
        "scales": numbers("eval_scales"),
        "mirror": FLAGS.eval_mirror,
        "tile_size": FLAGS.tile_size,
        "tile_overlap": FLAGS.tile_overlap,
    }


def model_options() -> dict[str, object]:
    """The flags of the network as `DeepLab` takes them."""
    names = ("backbone", "head", "output_stride", "atrous", "average_pool", "dropout")
    batch_norm = None if FLAGS.batch_norm == "auto" else FLAGS.batch_norm
    return {name: FLAGS[name].value for name in names} | {"scales": numbers("scales"), "batch_norm": batch_norm}


def numbers(name: str) -> tuple[float, ...] | None:
    """The value of a list flag as numbers; None where it is not given.

    Raises:
        UserError: an entry is no number.
    """
    values = FLAGS[name].value
    if values is None:
        return None
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        raise UserError(f"--{name}: found {','.join(values)!r}, expected numbers separated by commas") from None
