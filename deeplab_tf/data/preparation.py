"""Preparing a data set: from raw files to TFRecords."""

import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

from absl import logging

from deeplab_tf import beam
from deeplab_tf.data import catalogue
from deeplab_tf.data.download import fetch
from deeplab_tf.data.finding import find_builder, raw_folders
from deeplab_tf.errors import UserError
from deeplab_tf.files import process_name, remove_remains, write_text, writing


def prepare(
    name: str,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    *,
    on_error: str = "stop",
    overwrite: bool = False,
    download: bool = False,
    beam_pipeline_options: str | None = None,
    **options: Any,
) -> str:
    """Prepares a data set, if it is not prepared yet.

    Args:
        name: of the data set: a folder of `datasets/`, with a configuration where it has them ("cityscapes/coarse").
            Data of your own: "image_folder/<a name you choose>".
        data_dir: where prepared data sets lie; None is `~/tensorflow_datasets`.
        raw_dir: folder of the raw files; of "image_folder" also several with commas between them.
        on_error: what to do about a bad raw file: "stop" leaves nothing behind, "skip" leaves the example out and lists
            it in `skipped.txt` beside the records.
        overwrite: prepare it again if it is prepared already.
        download: fetch the raw files first, to `<data_dir>/downloads/<name>`, in place of `raw_dir`.
        beam_pipeline_options: convert on Apache Beam, for data too large for one machine; its options, separated by
            commas: "runner=DirectRunner,direct_num_workers=4".
        **options: of the data set, those of the builder's `OPTIONS`; None counts as not given.

    Returns:
        the version directory, for `training_pipeline` and `evaluation_pipeline`.

    Raises:
        UserError: unknown name or option, missing or bad raw files; or it is prepared already, from other raw files or
            with other options.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"--on_error must be 'stop' or 'skip', got {on_error!r}")
    options = {key: value for key, value in options.items() if value is not None}
    raw_dir = None if raw_dir is None else ",".join(map(str, raw_folders(os.fspath(raw_dir))))
    directory = catalogue.find_prepared(name, data_dir)
    if directory is not None and not overwrite:
        _check_same(name, directory, raw_dir, options)
        catalogue.warn_if_outdated(directory)
        return directory
    builder_class = find_builder(name.split("/")[0])
    unknown = sorted(set(options) - set(builder_class.OPTIONS))
    if unknown:
        raise UserError(f"--{unknown[0]} does not apply to dataset {name!r}")
    if download:
        raw_dir = _downloaded(builder_class, name, data_dir)
    elif raw_dir is None and builder_class.DOWNLOADS:
        raise UserError(
            f"dataset {name!r} is not prepared in {catalogue.resolved_data_dir(data_dir)}; to prepare it give the "
            "folder of its raw files as --raw_dir, or --download to fetch them"
        )
    beam_options = None if beam_pipeline_options is None else beam.pipeline_options(beam_pipeline_options)
    return _build(
        builder_class, name, catalogue.resolved_data_dir(data_dir), raw_dir, on_error, options, beam_options, overwrite
    )


def describe(directory: str | os.PathLike) -> str:
    """A few lines about a prepared data set: where it is, what it holds, what was left out."""
    info = catalogue.read_info(directory)
    splits = ", ".join(f"{split} {size}" for split, size in info.splits.items())
    lines = [f"{info.name} is prepared in {directory}", f"  splits    {splits}"]
    lines.append(f"  classes   {info.num_classes}: {', '.join(info.class_names)}")
    skipped = pathlib.Path(directory) / "skipped.txt"
    if skipped.exists():
        reasons = skipped.read_text(encoding="utf-8").splitlines()
        lines.append(f"  left out  {len(reasons)}, listed in {skipped}")
        lines.extend(f"            {reason}" for reason in reasons[:10])
    return "\n".join(lines)


def _build(
    builder_class,
    name: str,
    data_dir: pathlib.Path,
    raw_dir: str | None,
    on_error: str,
    options: dict,
    beam_options: Any,
    overwrite: bool,
) -> str:
    """Builds in a folder of its own and moves the result into place when it is whole."""
    import tensorflow_datasets as tfds

    config, verbosity = name.partition("/")[2], logging.get_verbosity()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        remove_remains(data_dir)
        staging = pathlib.Path(tempfile.mkdtemp(prefix=f".preparing-{process_name()}-", suffix=".part", dir=data_dir))
    except OSError as error:
        raise UserError(f"--data_dir={data_dir}: cannot be written ({error.strerror})") from error
    try:
        logging.set_verbosity(logging.ERROR)  # tensorflow-datasets' own words
        builder = builder_class(
            data_dir=str(staging),
            config=builder_class.config_named(config),
            raw_dir=raw_dir,
            on_error=on_error,
            options=options,
            provenance=_provenance(raw_dir, options),
            on_beam=beam_options is not None,
        )
        tfds.disable_progress_bar()  # of splits and shards; the builder shows its own, of images
        settings = tfds.download.DownloadConfig(beam_options=beam_options)
        with writing(data_dir):
            builder.download_and_prepare(download_dir=str(staging / "downloads"), download_config=settings)
        builder.check_counts(builder.counts)
        built = pathlib.Path(builder.data_path)
        if builder.skipped:
            write_text(built / "skipped.txt", "\n".join(builder.skipped) + "\n")
        catalogue.write_class_counts(built, builder.counts, builder.catalogue_info().num_classes)
        for note in [*builder.notes, *_never_occur(builder)]:
            print(f"note       {note}", file=sys.stderr)
        directory = data_dir / built.relative_to(staging)
        _move_into_place(built, directory, staging if overwrite else None)
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
        shutil.rmtree(staging, ignore_errors=True)
    return str(directory)


def _never_occur(builder) -> list[str]:
    """Lines about classes that no training mask holds."""
    names, counts = builder.catalogue_info().class_names, builder.counts.get("train")
    absent = [] if counts is None else [name for name, pixels in zip(names, counts, strict=False) if not pixels]
    if not absent:
        return []
    shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return [f"no training mask holds {shown}: check --class_names, --class_map and the split"]


def _move_into_place(built: pathlib.Path, directory: pathlib.Path, replaced: pathlib.Path | None) -> None:
    """Moves a whole data set to where it belongs.

    Args:
        built: its folder.
        directory: what it is to be called.
        replaced: gets what lies there already; None leaves it, since another host of several has just prepared it, and
            may be reading it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    if replaced is not None and directory.exists():
        directory.rename(replaced / "replaced")
    try:
        built.rename(directory)
    except OSError:
        if replaced is not None or not (directory / "dataset_info.json").exists():
            raise


def _downloaded(builder_class, name: str, data_dir: str | os.PathLike | None) -> str:
    """Fetches the raw files of a data set; returns their folder."""
    if not builder_class.DOWNLOADS:
        raise UserError(
            f"dataset {name!r} cannot be downloaded with --download; datasets/{name.split('/')[0]}/README.md tells how "
            "to get it; then give its folder as --raw_dir"
        )
    folder = catalogue.resolved_data_dir(data_dir) / "downloads" / name.split("/")[0]
    for archive in builder_class.DOWNLOADS:
        fetch(archive, folder)
    return str(folder.absolute())


def _check_same(name: str, directory: str, raw_dir: str | None, options: dict) -> None:
    """Refuses to pass off a data set as another that would be prepared under the same name."""
    metadata, given = catalogue.read_metadata(directory), _provenance(raw_dir, options)
    if raw_dir is not None and raw_dir != metadata["raw_dir"]:
        raise UserError(
            f"dataset {name!r} is prepared already in {directory}, from {metadata['raw_dir']} instead of {raw_dir}; "
            "prepare it again with --overwrite, or use another --data_dir"
        )
    different = [key for key, value in given["options"].items() if metadata["options"].get(key) != value]
    if different:
        raise UserError(
            f"dataset {name!r} is prepared already in {directory}, with another --{different[0]}; prepare it again "
            "with --overwrite"
        )


def _provenance(raw_dir: str | None, options: dict) -> dict:
    """The origin of a data set; files that are options by their content."""

    def fingerprint(value):
        path = pathlib.Path(str(value)).expanduser()
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else value

    return {"raw_dir": raw_dir, "options": {key: fingerprint(value) for key, value in options.items()}}
