"""The flags of the commands: which there are, which command obeys which, and how a command line is run.

Every command takes every flag from a flagfile, so that one flagfile serves them all, and reads those of the run from
`<model_dir>/config.flags`, which training writes; what is typed wins. A flag that is typed and that the command does
not obey is refused. The flags of a training are the fields of `deeplab_tf.training.Recipe`; the others stand here.
"""

import logging as python_logging
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence

from absl import flags, logging

from deeplab_tf import files
from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.errors import UserError, extras_named
from deeplab_tf.run_folder import EVALUATION_FLAGS, INFERENCE_FLAGS, check_run, read_flags
from deeplab_tf.training import recipe as recipes
from deeplab_tf.training.recipe import Field, Recipe

# TensorFlow's own log, set before anything imports it: warnings and errors; on a machine without an NVIDIA driver
# nothing, since CUDA reports the lack of a driver as an error. Python exceptions still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if os.path.exists("/dev/nvidiactl") else "3")

FLAGS = flags.FLAGS


def _flag(topic: str, name: str, kind: str, default, help_text: str, *, choices=None, least=None, most=None) -> Field:
    return Field(name, default, kind, help_text, topic, choices, least, most, may_change=True)


# Kinds beyond those of a recipe's fields: "words" is a tuple of texts, "file" names an existing file.
_OTHERS = (
    _flag(
        "run", "model_dir", "string", None, "Folder of a run: checkpoints, config.flags, TensorBoard events, results."
    ),
    _flag(
        "data",
        "dataset",
        "string",
        "shapes",
        "Name of the data set: a folder under datasets/; your own: image_folder/<a name you choose>.",
    ),
    _flag("data", "data_dir", "string", "~/tensorflow_datasets", "Folder of the prepared data sets (TFRecords)."),
    _flag(
        "prepare",
        "raw_dir",
        "string",
        None,
        "Folder of the data set's raw files, as downloaded or as you made them; image_folder: also several, a,b.",
    ),
    _flag(
        "prepare",
        "class_names",
        "file",
        None,
        "image_folder: text file with one class name a line, in the order of the labels.",
    ),
    _flag("prepare", "color_table", "file", None, "image_folder: text file with lines 'R G B name', for colour masks."),
    _flag(
        "prepare",
        "class_map",
        "file",
        None,
        "image_folder: file with lines 'new class = old class, old class', to merge, drop and reorder classes.",
    ),
    _flag("prepare", "train_list", "file", None, "image_folder: text file with the stems of the training images."),
    _flag("prepare", "val_list", "file", None, "image_folder: text file with the stems of the validation images."),
    _flag(
        "prepare",
        "val_fraction",
        "float",
        None,
        "image_folder: fraction of the images to validate on, without file lists.",
        least=0,
        most=1,
    ),
    _flag(
        "prepare",
        "split_seed",
        "integer",
        None,
        "image_folder: another number draws other images to validate on (0).",
        least=0,
        most=2**31 - 1,
    ),
    _flag(
        "prepare",
        "on_error",
        "enum",
        "stop",
        "A bad raw file: stop, or skip it and list it.",
        choices=("stop", "skip"),
    ),
    _flag("prepare", "download", "bool", False, "Fetch the raw files first, where their authors allow it."),
    _flag(
        "conversion",
        "beam_pipeline_options",
        "string",
        None,
        "Work on Apache Beam, for data too large for one machine; its options, separated by commas, such as "
        "'runner=DirectRunner,direct_num_workers=4'.",
    ),
    _flag("conversion", "summarize", "bool", False, "Print counts, sizes and class frequencies, draw a contact sheet."),
    _flag("conversion", "overwrite", "bool", False, "Prepare again what is prepared already."),
    _flag(
        "inference",
        "checkpoint",
        "enum",
        "latest",
        "The last checkpoint, or the best by validation mean IoU.",
        choices=("latest", "best"),
    ),
    _flag(
        "inference",
        "crf",
        "bool",
        False,
        "Refine with the dense CRF as well (its parameters: crf.json in the model_dir).",
    ),
    _flag(
        "inference", "limit", "integer", None, "Only this many images: the first of the split, or of --input.", least=1
    ),
    _flag("evaluation", "report_dir", "string", None, "Write a report with charts and pictures there: index.html."),
    _flag(
        "evaluation",
        "compare",
        "string",
        None,
        "Folder of another run: say per class what changed, and whether it may be noise.",
    ),
    _flag(
        "evaluation",
        "submission_dir",
        "string",
        None,
        "Write masks for the server of VOC 2012 or Cityscapes there; see --val_split.",
    ),
    _flag("comparison", "this", "file", None, "An evaluation*.json of a run."),
    _flag("comparison", "other", "file", None, "Another one, of the same images."),
    _flag(
        "comparison", "trimap_chart", "string", None, "Draw both runs' trimap curves (Fig. 10) there: .svg, .png, .pdf."
    ),
    _flag(
        "prediction",
        "input",
        "string",
        None,
        "An image, a folder of images or a quoted glob; predict.py: also a video, or camera:0.",
    ),
    _flag(
        "prediction",
        "output_dir",
        "string",
        None,
        "Folder for the results; default of predict.py: <model_dir>/predictions.",
    ),
    _flag(
        "prediction",
        "format",
        "words",
        None,
        "Files to write, one or more of: masks (indexed PNGs), overlays (pictures, or one video), probabilities "
        "(.npz), polygons (GeoJSON), coco (run lengths, one file). Default: masks,overlays; of a video: overlays. "
        "tools/refine.py: masks, probabilities; default: masks.",
        choices=("masks", "overlays", "probabilities", "polygons", "coco"),
    ),
    _flag("page", "port", "integer", 7860, "Port of the page on this machine, 127.0.0.1.", least=1, most=65_535),
    _flag(
        "page",
        "longer_side",
        "integer",
        640,
        "Photographs with a longer side than this, in pixels, are worked on at this size.",
        least=32,
        most=4096,
    ),
    _flag(
        "refinement",
        "maps",
        "string",
        None,
        "Folder of probabilities or scores (.npy, .npz), label maps (.png) or activation maps, named as the images.",
    ),
    _flag(
        "refinement",
        "crf_file",
        "file",
        None,
        "Parameters of the CRF, as tools/search_crf.py writes them; default: those of the released ResNet-101.",
    ),
    _flag(
        "refinement",
        "label_confidence",
        "float",
        0.7,
        "The probability that a label of a label map is right.",
        least=0,
        most=1,
    ),
    _flag(
        "refinement",
        "num_classes",
        "integer",
        None,
        "Number of classes of label maps; default: the largest label in them plus one.",
        least=2,
        most=256,
    ),
    _flag("refinement", "scores", "bool", False, "The maps are scores before the softmax (logits), of any size."),
    _flag(
        "refinement",
        "align_corners",
        "bool",
        False,
        "Small maps have their corner pixels on those of the image, as in Caffe and here; default: as PyTorch.",
    ),
    _flag(
        "refinement",
        "cam_threshold",
        "float",
        None,
        "Activation maps: background is where all classes are below this (IRN: 0.3).",
        least=0,
        most=1,
    ),
    _flag(
        "refinement",
        "cam_power",
        "float",
        None,
        "Activation maps: the background's map is (1 - the largest) to this power (PSA: 4 to 32).",
        least=0,
        most=1000,
    ),
    _flag(
        "reproduction",
        "table",
        "enum",
        None,
        "Number of a table of the paper, or the baselines of a field.",
        choices=(*"123456789", "deeplab_pytorch", "wsss", "adaptation"),
    ),
    _flag("reproduction", "dry_run", "bool", False, "Only list what is there, what is missing, and how long it takes."),
    _flag("scoring", "predictions", "string", None, "Folder of masks to score (.png, ...), also in folders below."),
    _flag("scoring", "labels", "string", None, "Folder of the true masks, named as the predictions."),
    _flag("scoring", "prediction_suffix", "string", "", "End of the names of predictions that the truths do not have."),
    _flag("scoring", "label_suffix", "string", "", "End of the names of the truths, such as _gtFine_labelIds."),
    _flag(
        "scoring",
        "prediction_ids",
        "string",
        None,
        "Table of the values in predictions: cityscapes, or a file with lines 'value class'.",
    ),
    _flag(
        "scoring",
        "label_ids",
        "string",
        None,
        "Table of the values in the truth: cityscapes, or a file with lines 'value class'.",
    ),
    _flag(
        "data",
        "ignore_label",
        "integer",
        255,
        "Value of label maps, of the truth and of image_folder's masks for pixels without a label.",
        least=0,
        most=65_535,
    ),
    _flag(
        "scoring",
        "classes",
        "words",
        None,
        "Give means over these classes too: synthia16, synthia13 (of Cityscapes), or names of classes.",
    ),
    _flag("scoring", "score_file", "string", None, "JSON file for everything measured."),
    _flag("cores", "cores", "integer", None, "Cores to use at most; default: all that the process may use.", least=1),
    _flag("weights", "output", "string", None, "Weight file to write, *.weights.h5."),
    _flag("weights", "list", "bool", False, "List the public weight files by name, and do nothing else."),
    _flag("export", "export_dir", "string", None, "Folder of the SavedModel; every export adds a numbered version."),
    _flag(
        "export",
        "outputs",
        "words",
        ("labels", "probabilities"),
        "What the served model returns: labels, probabilities, confidence (of the label).",
        choices=("labels", "probabilities", "confidence"),
    ),
    _flag(
        "export",
        "formats",
        "words",
        ("saved_model",),
        "Formats to write: saved_model (TF Serving), onnx, litert; quantised: onnx_int8, litert_float16, litert_int8.",
        choices=("saved_model", "onnx", "onnx_int8", "litert", "litert_float16", "litert_int8"),
    ),
    _flag(
        "export",
        "export_precision",
        "enum",
        "float32",
        "Arithmetic of the SavedModel's network; in 16 bits its weights take half the space too.",
        choices=("float32", "bfloat16", "float16"),
    ),
    _flag(
        "export",
        "litert_size",
        "integers",
        (513, 513),
        "Height and width of the images of the LiteRT model, pixels.",
        least=1,
        most=65_535,
    ),
    _flag(
        "export",
        "calibration_images",
        "string",
        None,
        "int8: folder or quoted glob of images such as the model will see; default: of the run's training split.",
    ),
    _flag(
        "export",
        "max_pixels",
        "integer",
        1 << 24,
        "The served model refuses larger images, to save its memory.",
        least=1,
    ),
)
FIELDS = {field.name: field for field in (*_OTHERS, *recipes.fields())}
# The topics in the order in which --help shows them.
TOPICS = dict.fromkeys(
    [
        "run",
        "data",
        "prepare",
        "conversion",
        "comparison",
        "prediction",
        "page",
        "refinement",
        "scoring",
        "weights",
        "model",
    ]
    + ["training", "inference", "evaluation", "export", "reproduction", "cores"]
)

_RECIPE = tuple(field.name for field in recipes.fields())
_PREPARE = ("dataset", "data_dir", "ignore_label", *(field.name for field in _OTHERS if field.topic == "prepare"))
_INFERENCE = ("model_dir", "checkpoint", *INFERENCE_FLAGS.values())
_SPLIT = ("dataset", "data_dir", "val_split", "limit")
_NETWORK = ("backbone", "head", "output_stride", "scales", "atrous", "batch_norm", "average_pool", "dropout")

# The flags that each command obeys.
OBEYED = {
    "datasets/prepare.py": (*_PREPARE, "beam_pipeline_options", "summarize", "overwrite"),
    "train.py": ("model_dir", *_PREPARE, *_RECIPE, "crf", "export_dir"),
    "evaluate.py": (*_INFERENCE, *_SPLIT, "crf", "overlays", "classes", "report_dir", "compare", "submission_dir"),
    "predict.py": (*_INFERENCE, "crf", "limit", "input", "output_dir", "format", "beam_pipeline_options"),
    "export_saved_model.py": (
        *(*_INFERENCE, "crf", "export_dir"),
        *("outputs", "formats", "export_precision", "litert_size", "max_pixels"),
        *("calibration_images", "dataset", "data_dir", "train_split"),
    ),
    "tools/search_crf.py": (*_INFERENCE, *_SPLIT),
    "tools/demo.py": (*_INFERENCE, "port", "longer_side"),
    "tools/refine.py": (
        *("input", "maps", "output_dir", "format", "crf_file", "label_confidence", "num_classes", "ignore_label"),
        *("scores", "align_corners", "cam_threshold", "cam_power", "cores", "beam_pipeline_options"),
    ),
    "tools/score.py": (
        *("predictions", "labels", "prediction_suffix", "label_suffix", "prediction_ids", "label_ids"),
        *("ignore_label", "classes", "score_file", "dataset", "data_dir", "cores"),
    ),
    "tools/compare.py": ("this", "other", "trimap_chart"),
    "tools/convert_weights.py": (
        *("model_dir", "dataset", "data_dir", "initial_weights", "seed", "output", *_NETWORK),
        *("eval_align_corners", "weights_dir", "weights_key", "list"),
    ),
    "tools/reproduce.py": ("table", "dry_run", "data_dir", "raw_dir", "train_masks"),
    "docs/api_reference.py": ("output_dir",),
    "benchmarks/predict.py": (*_INFERENCE, "crf", "limit", "input", "format"),
    "benchmarks/step_cost.py": ("backbone", "head", "output_stride", "scales", "crop_size"),
}
# Flags that are told by a file where they are not given: their defaults do not count.
_TOLD_BY_FILES = {"tools/convert_weights.py": ("dataset", *_NETWORK), "tools/score.py": ("dataset",)}
_MOST_NAMED = 100  # of what a command has left out
_HELP = ("--help", "-help", "-h")


class _Parser(flags.ArgumentParser):
    """Reads the text of a flag as a `Field` does; "" stands for no value where a flag may have none."""

    def __init__(self, field: Field):
        super().__init__()
        self._field = field

    def parse(self, argument):
        """The value; raises `UserError`, which absl reports as a wrong value."""
        if not isinstance(argument, str):
            return argument
        field = self._field
        if argument == "" and field.default is None:
            return None
        if field.kind in ("string", "file"):
            return argument
        if field.kind == "words":
            words = tuple(argument.split(","))
            if field.choices and not set(words) <= set(field.choices):
                raise UserError(f"--{field.name}={argument}: expected one or more of {', '.join(field.choices)}")
            return words
        return field.checked(field.parsed(argument))


def _define(field: Field) -> None:
    if field.kind == "bool":
        flags.DEFINE_bool(field.name, field.default, field.help)
    else:
        flags.DEFINE(_Parser(field), field.name, field.default, field.help)


for _field in FIELDS.values():
    _define(_field)


def run(
    main: Callable[[], None],
    command: str,
    *,
    required: Sequence[str] = (),
    of_a_run: bool = False,
    writes: Sequence[str] = (),
) -> None:
    """Runs a command line: parses and checks the flags, calls `main()`; a user's mistake is one line and exit status 1.

    Args:
        main: the command; reads `FLAGS`.
        command: its name in `OBEYED`.
        required: names of flags without which the command cannot run.
        of_a_run: whether --model_dir holds a run, whose `config.flags` come before those of the command line.
        writes: names of the flags whose folders the command writes to.
    """
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(python_logging.Formatter("note       %(message)s"))
    logging.set_verbosity(logging.WARNING)
    arguments = sys.argv[1:]
    if any(argument in _HELP for argument in arguments):
        print(help_text(command, main.__globals__.get("__doc__") or "", of_a_run))
        sys.exit(0)
    try:
        parse(arguments, command, required=required, of_a_run=of_a_run, writes=writes)
        with extras_named(command):
            main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def parse(
    arguments: Sequence[str],
    command: str,
    *,
    required: Sequence[str] = (),
    of_a_run: bool = False,
    writes: Sequence[str] = (),
) -> None:
    """Sets `FLAGS` from a command line, without the name of the command; as for `run`.

    Raises:
        UserError: an unknown flag, one that the command does not obey, a wrong or a missing value, a file that is not
            there, a folder that cannot be written.
    """
    _refuse_disobeyed(arguments, command)
    of_the_run = _config_of_the_run(arguments) if of_a_run else []
    try:
        rest = FLAGS([command, *of_the_run, *arguments])
    except flags.Error as error:
        # The parser's own line names the flag already.
        raise (error.__context__ if isinstance(error.__context__, UserError) else UserError(_one_line(error))) from None
    except (OSError, UnicodeError, ValueError, RecursionError) as error:
        files_named = [argument.partition("=")[2] for argument in arguments if "flagfile" in _typed([argument])]
        where = " or ".join(filter(None, files_named)) or "a flagfile"
        raise UserError(f"{where} cannot be read: {_one_line(error)}") from None
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; flags start with --, see --help")
    for name in required:
        if FLAGS[name].value in (None, ""):
            trained = name == "model_dir" and of_a_run
            hint = " To make one in minutes: python train.py --flagfile=demo.flags, then --model_dir=runs/demo"
            raise UserError(f"--{name} is missing: {FIELDS[name].help}{hint if trained else ''}")
    for name in OBEYED[command]:
        value = FLAGS[name].value
        if FIELDS[name].kind == "file" and value and not os.path.isfile(os.path.expanduser(value)):
            raise UserError(f"--{name}={value}: found no such file")
    if "tile_size" in OBEYED[command]:
        recipes.check_tiles(FLAGS.tile_size, FLAGS.tile_overlap)
    for name in writes:
        if FLAGS[name].value:
            files.check_folder(FLAGS[name].value, f"--{name}")
    if of_a_run:
        check_run(FLAGS.model_dir, "model_dir")


def help_text(command: str, description: str, of_a_run: bool = False) -> str:
    """The text of --help: what the command does, and the flags that it obeys, by topic."""
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    lines = [description.strip(), "", "Flags; --flagfile=FILE reads further ones, one a line:"]
    if of_a_run:
        lines[-1] = (
            "Flags; those not given are the run's own (config.flags); --flagfile=FILE reads further ones, one a line:"
        )
    for topic in TOPICS:
        fields = [FIELDS[name] for name in OBEYED[command] if FIELDS[name].topic == topic]
        lines += ["", f"{topic}:"] if fields else []
        for field in fields:
            named = f"--[no]{field.name}" if field.kind == "bool" else f"--{field.name}"
            has_default = field.default not in (None, False, "") and field.name not in _TOLD_BY_FILES.get(command, ())
            default = f" ({_as_text(field.default)})" if has_default else ""
            choices = ", ".join(map(str, field.choices)) if field.kind == "enum" else ""
            text = field.help + (f" One of: {choices}." if choices else "") + default
            lines += textwrap.wrap(text, width, initial_indent=f"  {named:<24}  ", subsequent_indent=" " * 28)
    return "\n".join(lines)


def recipe() -> Recipe:
    """The training that the flags describe.

    Raises:
        UserError: values that do not go together, or a file of class weights that is none.
    """
    from deeplab_tf.training.class_weights import read_numbers

    if FLAGS.class_weights not in (None, "", "balanced"):
        read_numbers(FLAGS.class_weights)
    return Recipe(**{name: FLAGS[name].value for name in _RECIPE})


def prepare_options() -> dict[str, object]:
    """The flags of `deeplab_tf.data.prepare` by name, but for its first three; None where a flag is not given."""
    options = {name: FLAGS[name].value for name in _PREPARE if name not in ("dataset", "data_dir", "raw_dir")}
    return options | {"ignore_label": None if FLAGS.ignore_label == IGNORE_LABEL else FLAGS.ignore_label}


def inference_options() -> dict[str, object]:
    """The flags of inference as `Segmenter.load` takes them, without the CRF."""
    return {"checkpoint": FLAGS.checkpoint} | {option: FLAGS[flag].value for option, flag in INFERENCE_FLAGS.items()}


def changed_of_the_run(model_dir: str | os.PathLike) -> dict[str, str]:
    """Those flags of an evaluation whose values are not the run's own, {name: value as it is typed}."""
    of_the_run, changed = read_flags(model_dir), {}
    for name in EVALUATION_FLAGS:
        value, parser = FLAGS[name].value, FLAGS[name].parser
        own = parser.parse(of_the_run[name]) if name in of_the_run else FIELDS[name].default
        if value != own:
            changed[name] = "none" if value is None else _as_text(value)
    return changed


def model_options() -> dict[str, object]:
    """The flags of the network as `DeepLab` takes them."""
    options = {name: FLAGS[name].value for name in _NETWORK}
    return options | {"batch_norm": None if FLAGS.batch_norm == "auto" else FLAGS.batch_norm}


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


def _refuse_disobeyed(arguments: Sequence[str], command: str) -> None:
    """Refuses a flag on the command line itself that the command does not obey."""
    for name in _typed(arguments):
        if name in FIELDS and name not in OBEYED[command]:
            others = [other for other, names in OBEYED.items() if name in names and not other.startswith("benchmarks")]
            obey = f"{', '.join(others)} obey it" if len(others) > 1 else f"{others[0]} obeys it"
            raise UserError(f"{command} does not obey --{name}; {obey}. In a flagfile it would be passed over")


def _typed(arguments: Sequence[str]) -> list[str]:
    """The names of the flags on a command line, those in its flagfiles not among them."""
    names = [argument.lstrip("-").partition("=")[0] for argument in arguments if argument.startswith("-")]
    return [name.removeprefix("no") if name not in FLAGS and name.startswith("no") else name for name in names]


def _config_of_the_run(arguments: Sequence[str]) -> list[str]:
    """The flags in `<model_dir>/config.flags`, but for those that this version does not know.

    The --model_dir is the one on the command line or in a flagfile named there.
    """
    try:
        given = flags.FlagValues().read_flags_from_files(list(arguments))
    except (flags.Error, OSError, UnicodeError, RecursionError):
        return []  # Said by `parse`, which reads them again.
    model_dir = None
    for position, argument in enumerate(given):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "model_dir":
            model_dir = value if equals else next(iter(given[position + 1 :]), None)
    of_the_run = read_flags(model_dir) if model_dir else {}
    return [f"--{name}={value}" for name, value in of_the_run.items() if name in FIELDS]


def _as_text(value) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _one_line(error: Exception) -> str:
    """The message of an error of absl or Python, printable and on one line."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error).removeprefix("ERROR:: "))
    return " ".join(text.split()) or type(error).__name__
