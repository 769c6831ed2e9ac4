"""Docstrings say what a thing is or does."""

import ast
import pathlib

from tests.helpers import REPOSITORY

FOLDERS = ("deeplab_tf", "datasets", "tools", "benchmarks", "examples")


def docstrings(path: pathlib.Path):
    """Line and first word of each docstring of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.split()[0]


def test_no_docstring_begins_with_a_question_word():
    """As CONTRIBUTING asks: "Report of `load`", not "What became of a load"."""
    paths = [*REPOSITORY.glob("*.py"), *(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))]
    assert len(paths) > 100
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in paths
        for line, word in docstrings(path)
        if word in ("What", "Who", "Whose", "Where", "How")
    ]
    assert not found
