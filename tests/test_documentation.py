"""The pages lead somewhere: links, anchors, commands and their flags, paths, code."""

import ast
import functools
import itertools
import pathlib
import re
import shlex

import pytest
from absl.testing import flagsaver

from deeplab_tf import flags
from deeplab_tf.flags import FIELDS, FLAGS, OBEYED
from tests.helpers import REPOSITORY

FOLDERS = ("deeplab_tf", "datasets", "tools", "benchmarks", "examples", "docs", "experiments", "recipes", "tests")
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(page for folder in FOLDERS for page in (REPOSITORY / folder).rglob("*.md"))]
)
# The pages that one comes to for a task.
TASKS = [page for page in PAGES if page.relative_to(REPOSITORY).parts[0] in ("docs", "experiments", "datasets")]
# Flags of other programs that the text names.
OF_OTHERS = {"enable_batching", "upsample_logits", "input-size", "not-restore-last", "random-mirror", "random-scale"}
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """The blocks of code in a language."""
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def prose(page: pathlib.Path) -> str:
    """A page without its blocks of code, and without what its tables say of other projects' flags."""
    lines, theirs = [], False
    for line in BLOCK.sub("", page.read_text()).splitlines():
        theirs = line.startswith("|") and (theirs or line.startswith("| theirs"))
        lines.append(line.split("|", 2)[2] if theirs else line)
    return "\n".join(lines)


def code(page: pathlib.Path) -> list[str]:
    """What stands between backticks in the prose."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


@functools.cache
def anchors(page: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower())
        found.append(words.replace(" ", "-"))
    return {f"{name}-{found[:i].count(name)}" if name in found[:i] else name for i, name in enumerate(found)}


def commands(page: pathlib.Path) -> list[list[str]]:
    """The commands of the repository that a page types: script and arguments."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    typed = [line for line in lines + code(page) if re.search(r"(^|[ &;])python [\w/]+\.py\b", line)]
    found = []
    for line in typed:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        for separator, part in itertools.groupby(lexer, lambda word: word in ("&&", "||", "|", ";")):
            part = list(itertools.dropwhile(lambda word: re.match("[A-Z_]+=", word), part))
            if not separator and part[0] == "python" and part[1].endswith(".py"):
                found.append(part[1:])
    return found


@functools.cache
def flags_of(path: pathlib.Path) -> set[str]:
    """The flags of a command that has its own parser, as its source and that of its neighbours it imports name them."""
    text = path.read_text()
    neighbours = [
        other for other in path.parent.glob("*.py") if re.search(rf"^import {other.stem}$", text, re.MULTILINE)
    ]
    text += "".join(other.read_text() for other in neighbours)
    named = re.findall(r'(?:add_argument\(\s*"--|DEFINE_\w+\(\s*")(\w+)"', text)
    return {*named, "help"}


@EVERY_PAGE
def test_links_lead_somewhere(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", BLOCK.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            dead.append(target)
    assert not dead


@EVERY_PAGE
def test_commands_stand_in_blocks_of_bash(page):
    """Where the next test reads them."""
    without = "".join(blocks(page, "")) + BLOCK.sub("", page.read_text())
    assert not re.findall(r"^ *(?:python|pip|git|docker|tensorboard) .*", without, re.MULTILINE)


@EVERY_PAGE
def test_commands_obey_the_flags_they_are_given(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for script, *arguments in commands(page):
        assert (REPOSITORY / script).is_file()
        if script not in OBEYED:
            names = {word[2:].partition("=")[0] for word in arguments if word.startswith("--")}
            unknown = [name for name in names if not {name, name.removeprefix("no")} & flags_of(REPOSITORY / script)]
            assert not unknown, script
            continue
        if script == "tools/convert_weights.py" and not arguments[0].startswith("-"):
            from deeplab_tf.weights import catalogue

            assert "." in arguments[0] or catalogue.get(arguments[0])
            arguments[0] = f"--initial_weights={arguments[0]}"
        # The user's own files are not here; their flags are read all the same.
        files = {f"--{name}" for name in OBEYED[script] if FIELDS[name].kind == "file"}
        arguments = [f"{word.split('=')[0]}={page}" if word.split("=")[0] in files else word for word in arguments]
        with flagsaver.flagsaver():
            for name in FIELDS:
                FLAGS[name].unparse()
            flags.parse(arguments, script)


@EVERY_PAGE
def test_flags_in_the_text_exist(page):
    if page.name == "CHANGELOG.md":
        pytest.skip("names flags that are gone")
    scripts = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    known = {"flagfile", *FIELDS}.union(*(flags_of(path) for path in scripts))
    named = {name for span in code(page) for name in re.findall(r"(?:^| )--([\w-]+)", span)}
    assert not [name for name in named - OF_OTHERS if not {name, name.removeprefix("no")} & known]


@EVERY_PAGE
def test_paths_in_the_text_exist(page):
    paths = [span for span in code(page) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", span)]
    assert not [path for path in paths if not (REPOSITORY / path).exists()]


@EVERY_PAGE
def test_python_parses(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", TASKS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_starts_with_its_command(page):
    """After the title, or after one sentence."""
    match = re.match(r"# [^\n]+\n+(.*?)\n*^```bash$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert match and len(re.findall(r"[.?](\s|$)", match[1])) <= 1 and "\n\n" not in match[1]


def test_there_are_commands():
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 100 and len({command[0] for command in found}) > 15


def test_the_index_has_every_page():
    text = (REPOSITORY / "docs/README.md").read_text()
    pages = [page for page in TASKS if page.name != "README.md"]
    assert len(pages) > 10 and not [page for page in pages if f"({page.name}" not in text]
