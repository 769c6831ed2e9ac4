"""The model card of a run or of an export: data, classes, figures and the commands that measured them, licence, flags.

`MODEL_CARD.md` is for people, and begins with the lines by which model hubs file it; `model_card.json` has the same.
"""

import json
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import deeplab_tf
from deeplab_tf import files, run_folder
from deeplab_tf.counts import STAGES

TEXT_FILE = "MODEL_CARD.md"
JSON_FILE = "model_card.json"

_NO_LICENSE = "not stated; `--license` of train.py, or that line in config.flags, is for it"
_SUMMARY = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
# The flags of evaluate.py, by the key in an evaluation's "made_with".
_FLAGS = {"split": "val_split", "limit": "limit", **run_folder.INFERENCE_FLAGS}
_DEFAULTS = {"input_scale": "1", "eval_align_corners": "true"}


def of_run(model_dir: str | os.PathLike) -> dict[str, Any]:
    """The card of a run as it is now, in terms of JSON.

    Keys: name, made_by, license (text, or None), data (dataset, train_split, val_split), classes (see
    `DatasetInfo.to_json`), network (the arguments of `DeepLab`), checkpoint, training (command, steps, flags), and
    evaluations, each with file, command, images, made_with and, by stage, the figures.

    Args:
        model_dir: folder of the run.

    Raises:
        UserError: the folder holds no run.
    """
    model_dir = pathlib.Path(model_dir).expanduser()
    description, flags = run_folder.read_description(model_dir), run_folder.read_flags(model_dir)
    checkpoint = run_folder.latest_checkpoint(model_dir)
    config = model_dir / run_folder.CONFIG_FILE
    paths = sorted(model_dir.glob("evaluation*.json"))
    card = _card(model_dir.resolve().name, description["model"], description["classes"])
    return card | {
        "license": flags.get("license") or None,
        "data": {name: flags.get(name) for name in ("dataset", "train_split", "val_split")},
        "checkpoint": checkpoint and os.path.basename(checkpoint),
        "training": {
            "command": f"python train.py --flagfile={shlex.quote(str(config))} --model_dir=another_folder",
            "steps": checkpoint and run_folder.checkpoint_step(checkpoint),
            "flags": {name: value for name, value in flags.items() if name != "data_dir"},
        },
        "evaluations": list(filter(None, (_evaluation(path, flags) for path in paths))),
    }


def of_segmenter(segmenter: Any) -> dict[str, Any]:
    """The card of what a segmenter holds: that of its run, with the evaluations of these very weights.

    Args:
        segmenter: a `Segmenter`; one that was not loaded from a run knows neither data nor figures.
    """
    settings = segmenter.settings
    if segmenter.model_dir:
        card = of_run(segmenter.model_dir)
    else:
        card = _card("segmenter", segmenter.model.get_config(), segmenter.info.to_json())
    same = [one for one in card["evaluations"] if one["made_with"].get("fingerprint") == settings["fingerprint"]]
    return card | {"checkpoint": settings["checkpoint"], "evaluations": same, "settings": settings}


def write(folder: str | os.PathLike, card: Mapping[str, Any]) -> None:
    """Writes both files of a card."""
    folder = pathlib.Path(folder)
    files.write_json(folder / JSON_FILE, dict(card))
    files.write_text(folder / TEXT_FILE, as_markdown(card))


def update(model_dir: str | os.PathLike) -> None:
    """Writes the card of a run into its folder; of another folder, nothing."""
    if run_folder.is_run(model_dir):
        write(pathlib.Path(model_dir).expanduser(), of_run(model_dir))


def _card(name: str, network: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "made_by": f"deeplab_tf {deeplab_tf.__version__}",
        "license": None,
        "data": {"dataset": classes.get("name"), "train_split": None, "val_split": None},
        "classes": dict(classes),
        "network": dict(network),
        "checkpoint": None,
        "training": None,
        "evaluations": [],
    }


def _evaluation(path: pathlib.Path, flags: Mapping[str, str]) -> dict[str, Any] | None:
    """The figures of one `evaluation*.json`, without its counts; None where it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stages = {
            stage: {key: content[stage][key] for key in (*_SUMMARY, "iou")} for stage in STAGES if stage in content
        }
        made_with = dict(content.get("made_with") or {})
        command = _command(path, made_with, flags)
        return {"file": path.name, "command": command, "images": content["images"], "made_with": made_with} | stages
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _command(path: pathlib.Path, made_with: Mapping[str, Any], flags: Mapping[str, str]) -> str:
    """The command that measures the same again: the flags in which the evaluation differs from the run's."""
    command = ["python", "evaluate.py", f"--model_dir={path.parent}"]
    is_best = path.stem.startswith("evaluation_best")
    command += ["--checkpoint=best"] if is_best else []
    if made_with.get("dataset") != flags.get("dataset"):
        command.append(f"--dataset={made_with.get('dataset')}")
    usual = {**_DEFAULTS, **flags, "eval_scales": flags.get("eval_scales") or flags.get("scales", "")}
    if not made_with.get("tile_size"):
        made_with = {key: value for key, value in made_with.items() if key != "tile_overlap"}
    for key in filter(made_with.__contains__, _FLAGS):
        flag, value = _FLAGS[key], _as_typed(made_with[key])
        if _normal(value) != _normal(usual.get(flag, "")):
            command.append(f"--{flag}={value}")
    return shlex.join([*command, *(["--crf"] if made_with.get("crf") else [])])


def _as_typed(value: Any) -> str:
    """A value of "made_with" as that of a flag."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return ",".join(map(_as_typed, value)) if isinstance(value, list) else str(value)


def _normal(text: str) -> str:
    """The text of a flag, such that equal values have equal texts."""
    try:
        return ",".join(f"{float(part):g}" for part in text.split(",")) if text else ""
    except ValueError:
        return "" if text == "false" else text


def as_markdown(card: Mapping[str, Any]) -> str:
    """A card as a page of Markdown."""
    network, classes = card["network"], card["classes"]
    scales = ", ".join(f"{scale:g}" for scale in network.get("scales", ()))
    names = classes["class_names"]
    parts = [
        _front_matter(card),
        f"# {card['name']}",
        f"A DeepLab v2 for {len(names)} classes of {card['data']['dataset']}: {network.get('backbone')}, "
        f"{network.get('head')}, output stride {network.get('output_stride')}, scales {scales}; "
        f"checkpoint {card['checkpoint']}, made by {card['made_by']}.",
        f"**Licence:** {card['license'] or _NO_LICENSE}.",
        "## Figures",
        *([_figures(card["evaluations"])] if card["evaluations"] else ["Not evaluated yet."]),
        *([_by_class(card["evaluations"][0], names)] if card["evaluations"] else []),
        "The figures hold for images like those of the data set; expect less from others.",
        "## Classes and data",
        f"Trained on {card['data']['dataset']} {card['data']['train_split'] or '(split unknown)'}. Classes by label: "
        + ", ".join(f"{i} {_plain(name)}" for i, name in enumerate(names))
        + f"; {classes['ignore_label']} is not a class. Colours are in `{JSON_FILE}`.",
    ]
    if card.get("training"):
        flags = "\n".join(f"--{name}={value}" for name, value in card["training"]["flags"].items())
        parts += [
            f"## Training\n\n{card['training']['steps']} steps:",
            _code(card["training"]["command"]),
            _code(flags),
        ]
    if card.get("export"):
        parts += ["## This export", _code(json.dumps(card["export"], indent=2))]
    return "\n\n".join(parts) + "\n"


def _front_matter(card: Mapping[str, Any]) -> str:
    lines = ["library_name: keras", "pipeline_tag: image-segmentation", "tags: [deeplab, semantic-segmentation]"]
    lines += [f"license: {json.dumps(card['license'])}"] if card["license"] else []
    return "\n".join(["---", *lines, "---"])


def _figures(evaluations: list[Mapping[str, Any]]) -> str:
    """A table of the summaries, in percent, and the commands."""
    rows = [("evaluation", "images", "stage", *_SUMMARY.values())]
    for one in evaluations:
        for stage in filter(one.__contains__, STAGES):
            figures = [_percent(one[stage][key]) for key in _SUMMARY]
            rows.append((f"`{one['file']}`", str(one["images"]), STAGES[stage], *figures))
    return _table(rows) + "\n\n" + _code("\n".join(one["command"] for one in evaluations))


def _by_class(evaluation: Mapping[str, Any], names: list[str]) -> str:
    """IoU of every class in percent, of the first evaluation."""
    stages = [stage for stage in STAGES if stage in evaluation]
    columns = [list(evaluation[stage]["iou"].values()) for stage in stages]
    rows = [("IoU, %", *(STAGES[stage] for stage in stages))]
    rows += [(_plain(name), *map(_percent, values)) for name, *values in zip(names, *columns, strict=True)]
    return f"By class, of `{evaluation['file']}`:\n\n{_table(rows)}"


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _plain(name: str) -> str:
    """A name of a class that cannot break a table."""
    return name.replace("|", "\\|").replace("\n", " ")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
