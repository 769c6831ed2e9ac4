"""`config.flags`: what a run is trained with, for the other commands, and to recognise the run when it is resumed."""

import os

from deeplab_tf import run_folder
from deeplab_tf.errors import UserError
from deeplab_tf.training.recipe import Recipe, fields

_FILES = ("initial_weights", "class_weights", "train_masks")  # Settings that may name a file.
_WORDS = ("imagenet", "balanced")  # Their values that do not.


def write_config(model_dir: str | os.PathLike, data_dir: str | os.PathLike, dataset: str, recipe: Recipe) -> None:
    """Writes config.flags; paths of files are absolute there, for commands that run elsewhere.

    Args:
        model_dir: folder of the run.
        data_dir: folder of the prepared data sets.
        dataset: name of the data set.
        recipe: of the run.
    """
    by_topic = recipe.to_flags()
    by_topic["data"] = {"dataset": dataset, "data_dir": _absolute(os.fspath(data_dir)), **by_topic["data"]}
    then = run_folder.read_flags(model_dir)
    for flags in by_topic.values():
        for name in flags.keys() & set(_FILES):
            path = _absolute(flags[name])
            if os.path.exists(path) or path == then.get(name):  # Or the file of this run is gone meanwhile.
                flags[name] = path
    run_folder.write_flags(model_dir, by_topic)


def check_same_run(model_dir: str | os.PathLike, recipe: Recipe, dataset: str) -> None:
    """Refuses to go on in the folder of another run.

    Args:
        model_dir: folder of the run; it may be new.
        recipe: to train with.
        dataset: name of the data set.

    Raises:
        UserError: `config.flags` there has other values for what is trained; the message names the flags.
    """
    flags = run_folder.read_flags(model_dir)
    if not flags:
        return
    names = [field.name for field in fields() if not field.may_change]
    if recipe.schedule == "step":
        names.remove("max_steps")  # The updates made so far are the same for any number of them.
    then, now = Recipe.from_flags(flags), recipe
    pairs = {name: (getattr(then, name), getattr(now, name)) for name in names}
    pairs["average_pool"] = tuple(map(bool, pairs["average_pool"]))  # Older versions wrote false where none was given.
    pairs["dataset"] = (flags.get("dataset", dataset), dataset)
    different = [
        f"--{name}={_as_flag(b)} (there: {_as_flag(a)})"
        for name, (a, b) in sorted(pairs.items())
        if a != b and not (name in _FILES and a and b and _absolute(a) == _absolute(b))
    ]
    if different:
        raise UserError(
            f"--model_dir={model_dir} holds a run with other flags: {', '.join(different)}; give that run's flags "
            "to resume it, or another --model_dir; to train on from its weights, give another --model_dir and "
            f"--initial_weights={model_dir}"
        )


def _absolute(path: str) -> str:
    return path if path in _WORDS else os.path.abspath(os.path.expanduser(path))


def _as_flag(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "not given" if value is None else str(value)
