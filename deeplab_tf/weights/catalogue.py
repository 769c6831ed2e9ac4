"""Public weight files by name: found in the folder of weights, or fetched; the table itself is in `public_files.py`."""

import difflib
import os
import pathlib
import shutil
import zipfile
import zlib

from deeplab_tf.data.download import check, download
from deeplab_tf.errors import UserError
from deeplab_tf.files import written_aside
from deeplab_tf.weights.public_files import CATALOGUE, Address, PublicFile

FOLDER_VARIABLE = "DEEPLAB_TF_WEIGHTS"  # of the environment, names the folder of weights
_DEFAULT_FOLDER = "~/.cache/deeplab_tf"
_BY_NAME = {entry.name: entry for entry in CATALOGUE}


def get(name: str) -> PublicFile | None:
    """The public file of a name; None where there is none."""
    return _BY_NAME.get(name)


def similar(name: str) -> str:
    """A hint for a name that is not a file: the names of the catalogue that are like it, if any."""
    names = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(names)}?" if names else ""


def folder(weights_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """The folder of weights: the one given, else that of the environment's DEEPLAB_TF_WEIGHTS, else the default."""
    return pathlib.Path(weights_dir or os.environ.get(FOLDER_VARIABLE) or _DEFAULT_FOLDER).expanduser()


def locate(entry: PublicFile, weights_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """The file in the folder of weights, fetched if it is not there: written aside, checked, then renamed.

    Args:
        entry: of the catalogue.
        weights_dir: as for `folder`.

    Returns:
        its path.

    Raises:
        UserError: it is not what it should be, or is not there and cannot be fetched; the message says where to get it
            and where to put it.
    """
    path = folder(weights_dir) / entry.file
    if path.is_file():
        check(path, entry.checksum, f"it is not {entry.name}: remove it, or give its path to load it as it is")
        return path
    failures = []
    for address in entry.addresses:
        if address.by_hand:
            continue
        try:
            _fetch(entry, address.url, path)
        except UserError as error:
            failures.append(str(error))
        else:
            return path
    pages = " or ".join(address.url for address in entry.addresses if address.by_hand)
    tried = "".join(f"{failure}; " for failure in failures)
    get_it = f"get it from {pages}" if pages else "get it by other means"
    raise UserError(f"{entry.name}: {tried}{get_it} and put it at {path}")


def _fetch(entry: PublicFile, url: str, path: pathlib.Path) -> None:
    """Downloads a file, or the zip file that holds it, and leaves it at `path` if it is the right one."""
    with written_aside(path) as aside:
        if url.endswith(".zip"):
            archive = aside.with_suffix(".zip")
            try:
                download(url, archive)
                _extract(archive, path.name, aside, url)
            finally:
                archive.unlink(missing_ok=True)
        else:
            download(url, aside)
        check(aside, entry.checksum, f"it came from {url}: damaged, or another file than before")


def _extract(archive: pathlib.Path, name: str, target: pathlib.Path, url: str) -> None:
    """Writes the file called `name` in a zip file, in whatever folder it is there, to `target`."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.namelist() if pathlib.PurePosixPath(member).name == name]
            if not members:
                raise UserError(f"{url} holds no {name}")
            with content.open(members[0]) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{url} cannot be unpacked ({error!s:.200})") from error


def as_text() -> str:
    """The catalogue for a terminal: a few lines for each file."""
    blocks = []
    for entry in CATALOGUE:
        lines = [entry.name, f"    {entry.trained}", f"    needs    {_network(entry)}"]
        lines += [f"    classes  {entry.classes}"] if entry.classes else []
        lines += [f"    file     {entry.file}{_facts(entry)}"]
        lines += [
            f"    {'by hand ' if address.by_hand else 'from    '} {_cited(address)}" for address in entry.addresses
        ]
        lines += [f"    note     {entry.note}"] if entry.note else []
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def as_markdown() -> str:
    """The catalogue as the tables of docs/weights.md."""
    lines = ["| name | trained | needs | classes | file | where |", "|---|---|---|---|---|---|"]
    for entry in CATALOGUE:
        where = "; ".join(("by hand: " if address.by_hand else "") + _cited(address) for address in entry.addresses)
        trained = entry.trained + (f" ({entry.note})" if entry.note else "")
        cells = (f"`{entry.name}`", trained, _network(entry), entry.classes, f"`{entry.file}`{_facts(entry)}", where)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _network(entry: PublicFile) -> str:
    return ", ".join(
        f"{name}={','.join(f'{scale:g}' for scale in value) if isinstance(value, tuple) else value}"
        for name, value in entry.network.items()
    )


def _facts(entry: PublicFile) -> str:
    size = [f"{entry.size:,} bytes"] if entry.size else []
    return "".join(f", {fact}" for fact in (*size, *([entry.checksum] if entry.checksum else [])))


def _cited(address: Address) -> str:
    date = f", {address.date}" if address.date else ""
    return f"{address.url} ({address.source}{date})"
