"""The folder of a run (`model_dir`): its parts by name, and how they are read.

    config.flags        the flags it is trained with; the other commands read them
    segmenter.json      the configuration of the network, and the classes
    checkpoints/        the newest checkpoints, ckpt-<step>
    best/               the checkpoint with the highest validation mean IoU, and best.json
    validation.json     the scalars of every validation, by step
    crf.json            parameters of the dense CRF, once they are searched
    evaluation*.json    figures of an evaluation, with its counts by image and overlays*/; see `evaluation_name`
    MODEL_CARD.md       data, classes, figures, licence and flags, for people; model_card.json for programs
    train/ validation/  TensorBoard's events

TensorFlow is imported where a checkpoint is restored, and nowhere else.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import UserError

CONFIG_FILE = "config.flags"
DESCRIPTION_FILE = "segmenter.json"
CHECKPOINTS = "checkpoints"
BEST = "best"
BEST_FILE = "best.json"
VALIDATION_FILE = "validation.json"
CRF_FILE = "crf.json"
TRAIN_EVENTS = "train"
VALIDATION_EVENTS = "validation"
LOCK_FILE = ".lock"


class EvaluationFiles(NamedTuple):
    """Names of the files of one evaluation: figures (JSON), counts by image (.npz), and a folder of pictures."""

    figures: str
    image_counts: str
    overlays: str


def evaluation_files(name: str = "") -> EvaluationFiles:
    """`evaluation.json`, `evaluation_images.npz` and `overlays`; of the name "best" `evaluation_best.json` etc."""
    suffix = f"_{name}" if name else ""
    return EvaluationFiles(f"evaluation{suffix}.json", f"evaluation{suffix}_images.npz", f"overlays{suffix}")


# The options of a `Segmenter`, as it takes and tells them, and the flags that give them.
INFERENCE_FLAGS = {
    "input_scale": "input_scale",
    "scales": "eval_scales",
    "mirror": "eval_mirror",
    "vertical_flip": "eval_vertical_flip",
    "tile_size": "tile_size",
    "tile_overlap": "tile_overlap",
    "pad_to": "pad_to",
    "align_corners": "eval_align_corners",
}
# The flags that change what an evaluation measures, and the part of its name for a value unlike the run's own.
_NAME_PARTS = {
    "dataset": "{}",
    "val_split": "{}",
    "input_scale": "input{}",
    "eval_scales": "scales{}",
    "eval_mirror": "{}mirror",
    "eval_vertical_flip": "{}flip",
    "tile_size": "tiles{}",
    "tile_overlap": "overlap{}",
    "pad_to": "padded{}",
    "eval_align_corners": "{}aligned",
    "crf": "{}crf",
}
EVALUATION_FLAGS = tuple(_NAME_PARTS)


def evaluation_name(
    checkpoint: str = "latest", limit: int | None = None, changed: Mapping[str, str] | None = None
) -> str:
    """The name of an evaluation: "" for the latest checkpoint on all images, with the flags of the run.

    Args:
        checkpoint: "latest" or "best".
        limit: number of images, where not all of the split are evaluated.
        changed: those of `EVALUATION_FLAGS` whose values are not the run's, as they are typed.

    Returns:
        such as "crf", "best_first7" or "test_scales0.5-1", fit for the name of a file.
    """
    parts = [checkpoint] if checkpoint != "latest" else []
    switches = {"true": "", "false": "no"}
    parts += [_NAME_PARTS[flag].format(switches.get(value, value)) for flag, value in (changed or {}).items()]
    parts += [f"first{limit}"] if limit else []
    return re.sub(r"[^\w.+-]+", "-", "_".join(parts))


def set_evaluation_aside(model_dir: str | os.PathLike, name: str, made_with: Mapping[str, Any]) -> None:
    """Renames an evaluation of the same weights but other settings, before one of its name is written.

    The name holds the flags; the parameters of the CRF may have changed with `crf.json`, and older versions had fewer
    names. An evaluation of earlier weights stays where it is, to be overwritten.

    Args:
        model_dir: folder of the run.
        name: of the evaluation, see `evaluation_name`.
        made_with: how the new one is made, see `Evaluation.made_with`.
    """
    model_dir, written = pathlib.Path(model_dir), evaluation_files(name)
    if not (model_dir / written.figures).is_file():
        return
    earlier = _read_json(model_dir / written.figures).get("made_with") or {}
    same = earlier and all(earlier.get(key, value) == value for key, value in made_with.items() if key != "checkpoint")
    if same or earlier.get("fingerprint", made_with["fingerprint"]) != made_with["fingerprint"]:
        return
    digest = hashlib.sha256(json.dumps(earlier, sort_keys=True).encode()).hexdigest()[:6]
    for old, new in zip(written, evaluation_files("_".join(filter(None, (name, digest)))), strict=True):
        shutil.rmtree(model_dir / new, ignore_errors=True)
        if (model_dir / old).exists():
            os.replace(model_dir / old, model_dir / new)


def image_counts_beside(figures: pathlib.Path) -> pathlib.Path:
    """The counts by image that were written with an `evaluation*.json`."""
    return figures.with_name(f"{figures.stem}_images.npz")


def checkpoint_step(path: str | os.PathLike) -> int:
    """The step of a checkpoint, by its name `ckpt-<step>`, with or without a suffix."""
    return int(re.match(r"ckpt-(\d+)", os.path.basename(path))[1])


def complete_checkpoints(folder: pathlib.Path) -> list[str]:
    """Paths of the checkpoints in a folder, without suffix, in the order of their steps.

    The files themselves count, not TensorFlow's list of them, which a crash may leave behind empty. TensorFlow writes
    the index of a checkpoint last, so one that was being written at a kill is not among them.
    """
    found = [path.with_suffix("") for path in folder.glob("ckpt-*.index") if path.stem[len("ckpt-") :].isdigit()]
    return [str(path) for path in sorted(found, key=checkpoint_step)]


def checkpoints(model_dir: str | os.PathLike) -> list[str]:
    """Paths of the checkpoints in `checkpoints/`, without suffix, in the order of their steps."""
    return complete_checkpoints(pathlib.Path(model_dir).expanduser() / CHECKPOINTS)


def latest_checkpoint(model_dir: str | os.PathLike) -> str | None:
    """Path of the last checkpoint, without suffix; None where there is none."""
    return next(reversed(checkpoints(model_dir)), None)


def best_checkpoint(model_dir: str | os.PathLike) -> str | None:
    """Path of the checkpoint with the best validation mean IoU, without suffix; None where there is none."""
    complete = complete_checkpoints(pathlib.Path(model_dir).expanduser() / BEST)
    named = [path for path in complete if os.path.basename(path) == read_best(model_dir).get("checkpoint")]
    return next(reversed(named or complete), None)


def read_best(model_dir: str | os.PathLike) -> dict[str, Any]:
    """The content of `best.json`: "checkpoint" and "mean_iou"; empty if the file is missing or damaged."""
    return _read_json(pathlib.Path(model_dir).expanduser() / BEST / BEST_FILE)


def restore_newest(checkpoint: Any, paths: Iterable[str]) -> str | None:
    """Restores the last of some checkpoints that can be read; says on stderr which are passed over.

    Args:
        checkpoint: a `tf.train.Checkpoint` of what is to be restored; the files may hold more.
        paths: of checkpoints, without suffix, the newest last.

    Returns:
        the path that was restored; None where `paths` is empty.

    Raises:
        UserError: none of them can be read.
    """
    import tensorflow as tf

    paths = list(paths)
    for path in reversed(paths):
        try:
            checkpoint.read(path).assert_existing_objects_matched().expect_partial()
            return path
        except (tf.errors.OpError, ValueError, AssertionError, IndexError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            print(f"checkpoint {path} cannot be read and is passed over: {reason}", file=sys.stderr)
    if paths:
        raise UserError(
            f"none of the {len(paths)} checkpoints in {os.path.dirname(paths[0])} can be read; use another checkpoint "
            "or --model_dir; where that folder is deleted, a training starts from the beginning"
        )
    return None


def write_description(
    model_dir: str | os.PathLike,
    model: Mapping[str, Any],
    classes: Mapping[str, Any],
    train_masks: Mapping[str, Any] | None = None,
) -> None:
    """Writes what a segmenter needs besides a checkpoint.

    Args:
        model_dir: folder of the run.
        model: the network's configuration (`DeepLab.get_config`).
        classes: {"name", "class_names", "palette", "ignore_label"} of the data set, in terms of JSON.
        train_masks: what was trained on in place of the data set's own masks (`TrainMasks.description`), if anything.
    """
    content = {"model": dict(model), "classes": dict(classes)}
    content |= {"train_masks": dict(train_masks)} if train_masks else {}
    files.write_json(pathlib.Path(model_dir) / DESCRIPTION_FILE, content)


def is_run(model_dir: str | os.PathLike) -> bool:
    """Whether a folder holds a run, by its description."""
    return (pathlib.Path(model_dir).expanduser() / DESCRIPTION_FILE).is_file()


def check_run(model_dir: str | os.PathLike, name: str = "") -> None:
    """Refuses a folder that holds no run, without loading it.

    Args:
        model_dir: the folder.
        name: of the flag that gives it, for the message.

    Raises:
        UserError: its description is missing.
    """
    if not is_run(model_dir):
        raise UserError(
            f"{f'--{name}=' * bool(name)}{model_dir} holds no trained model: {DESCRIPTION_FILE} is missing; train.py "
            "writes it there"
        )


def read_description(model_dir: str | os.PathLike) -> dict[str, Any]:
    """The description of a run's network, as `write_description` wrote it: {"model", "classes"}, perhaps "train_masks".

    Raises:
        UserError: the folder holds no run, or the file is damaged.
    """
    check_run(model_dir)
    path = pathlib.Path(model_dir).expanduser() / DESCRIPTION_FILE
    content = _read_json(path)
    if not (isinstance(content.get("model"), dict) and isinstance(content.get("classes"), dict)):
        raise UserError(f"{path} is damaged; the command that trained this run writes it again")
    return content


def write_flags(model_dir: str | os.PathLike, by_topic: Mapping[str, Mapping[str, str]]) -> None:
    """Writes `config.flags`, a flagfile.

    Args:
        model_dir: folder of the run.
        by_topic: {topic: {name: value}}.
    """
    lines = []
    for topic, flags in by_topic.items():
        lines += [f"# {topic}", *(f"--{name}={value}" for name, value in flags.items())]
    files.write_text(pathlib.Path(model_dir) / CONFIG_FILE, "\n".join(lines) + "\n")


def read_flags(model_dir: str | os.PathLike) -> dict[str, str]:
    """The flags in `config.flags`, {name: value}; empty where there is no such file.

    Raises:
        UserError: it is not a text file.
    """
    path = pathlib.Path(model_dir).expanduser() / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a flagfile ({error})") from None
    flags = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("--").partition("=")
        if line.startswith("--") and equals:
            flags[name] = value
        elif line.startswith("--"):  # A switch: --mirror or --nomirror.
            flags[name.removeprefix("no")] = "false" if name.startswith("no") else "true"
    return flags


def read_validations(model_dir: str | os.PathLike) -> dict[int, dict[str, float]]:
    """The scalars of every validation, by step; empty where there was none."""
    content = _read_json(pathlib.Path(model_dir).expanduser() / VALIDATION_FILE)
    return {int(step): scalars for step, scalars in content.items() if step.isdigit() and isinstance(scalars, dict)}


def write_validations(model_dir: str | os.PathLike, validations: Mapping[int, Mapping[str, float]]) -> None:
    """Writes the scalars of every validation, by step."""
    files.write_json(pathlib.Path(model_dir) / VALIDATION_FILE, {str(step): of for step, of in validations.items()})


def fingerprint(model: Any) -> str:
    """A hash of a network's configuration, but for its scales, and of its present weights: 16 hexadecimal digits.

    Args:
        model: a `DeepLab`.
    """
    config = {name: value for name, value in model.get_config().items() if name not in ("scales", "name")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for variable in model.weights:  # not dropout's random state, which is another in every process
        digest.update(variable.path.encode())
        digest.update(np.ascontiguousarray(variable.numpy()))
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(model_dir: str | os.PathLike) -> Iterator[None]:
    """Makes the folder of a run if needed, and keeps other trainings out of it within the block.

    The operating system gives the lock back when the process ends, however it ends.

    Raises:
        UserError: another process trains there, or the folder cannot be written.
    """
    path = pathlib.Path(model_dir) / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--model_dir={model_dir} cannot be written: {error.strerror}") from None
    with file:
        if not _lock(file):
            file.seek(0)
            raise UserError(
                f"--model_dir={model_dir} is being trained by {file.read().strip() or 'another process'}; wait for it, "
                "stop it, or give another --model_dir"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def remove_remains(model_dir: str | os.PathLike) -> None:
    """Removes what killed trainings have left half-written. Call it within `locked`."""
    model_dir = pathlib.Path(model_dir)
    remains = [*model_dir.glob(f".{CHECKPOINTS}-of-host-*")]
    for name in map(pathlib.Path, (CONFIG_FILE, DESCRIPTION_FILE, VALIDATION_FILE)):  # An evaluation may be at work.
        remains += model_dir.glob(f".{name.stem}.*.part{name.suffix}")
    remains += [*model_dir.glob(f"{CHECKPOINTS}/ckpt-*_temp"), *model_dir.glob(f"{CHECKPOINTS}/checkpoint.tmp*")]
    remains += model_dir.glob(f"{BEST}/.*.part*")
    for folder in (CHECKPOINTS, BEST):
        complete = {os.path.basename(path) for path in complete_checkpoints(model_dir / folder)}
        remains += [path for path in (model_dir / folder).glob("ckpt-*.data-*") if path.stem not in complete]
    best = best_checkpoint(model_dir)
    remains += [path for path in model_dir.glob(f"{BEST}/ckpt-*") if best and path.stem != os.path.basename(best)]
    for path in remains:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lock(file: Any) -> bool:
    """Takes the lock of an open file; False where another process has it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # A system or a file system without locks.
        pass
    return True


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """The dictionary in a JSON file; empty where there is no such file, or something else in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
