"""The commands of docs/research.md: every flag exists, its command obeys it, and its value is one that it takes."""

import pathlib
import re
import shlex

import pytest
from absl.testing import flagsaver

from deeplab_tf import flags, weights
from deeplab_tf.flags import FIELDS, FLAGS, OBEYED

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/research.md"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python ")]


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_page_is_one(line, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    command, *arguments = shlex.split(line)[1:]
    if command == "tools/convert_weights.py":
        assert weights.catalogue.get(arguments[0])
        arguments[0] = f"--initial_weights={arguments[0]}"
    with flagsaver.flagsaver():
        for name in FIELDS:
            FLAGS[name].unparse()
        flags.parse(arguments, command)


def test_every_flag_that_the_tables_name_exists():
    ours = [
        line.split("|")[2] for line in PAGE.read_text().splitlines() if line.startswith("| ") and line.count("|") == 3
    ]
    named = set(re.findall(r"--(\w+)", " ".join(ours)))
    known = {name for names in OBEYED.values() for name in names}
    assert len(named) > 30 and {name.removeprefix("no") if name == "nomirror" else name for name in named} <= known
