"""The API reference: complete, without dead links, and written aside."""

import html.parser
import pathlib
import re
import runpy
import sys

import pytest
from absl.testing import flagsaver

import deeplab_tf
from deeplab_tf import crf, data, evaluation, inference, models, serving, training, weights
from deeplab_tf.crf import pydensecrf
from deeplab_tf.errors import UserError
from tests.helpers import REPOSITORY, run_command


class Page(html.parser.HTMLParser):
    """The anchors and links of an HTML page."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.anchors.update(value for name, value in attrs if name == "id")
        self.links += [value for name, value in attrs if name in ("href", "src")]


@pytest.mark.slow
def test_the_reference_has_what_the_packages_offer_and_no_dead_links(tmp_path):
    result = run_command("docs/api_reference.py", "--output_dir=api", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")  # pdoc warns of what it cannot show
    assert [path.name for path in tmp_path.iterdir()] == ["api"]
    pages = {path: Page(path) for path in (tmp_path / "api").rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            there = (path.parent / target).resolve() if target else path
            if not re.match("[a-z]+:", link) and not (
                there in pages and (not anchor or anchor in pages[there].anchors)
            ):
                dead.append((str(path), link))
    assert not dead
    for package in (deeplab_tf, crf, data, evaluation, inference, models, pydensecrf, serving, training, weights):
        name = package.__name__.replace(".", "/")
        offered = {member for member in package.__all__ if not (tmp_path / f"api/{name}/{member}.html").exists()}
        assert offered <= pages[tmp_path / f"api/{name}.html"].anchors


def test_the_reference_replaces_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="holds other things than an API reference"):
        runpy.run_path(str(REPOSITORY / "docs/api_reference.py"))["write"](tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_without_pdoc_the_reference_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pdoc", None)
    monkeypatch.setattr(sys, "argv", ["api_reference.py", f"--output_dir={tmp_path}"])
    with pytest.raises(SystemExit, match="1"), flagsaver.flagsaver():
        runpy.run_path(str(REPOSITORY / "docs/api_reference.py"), run_name="__main__")
    line = "error: docs/api_reference.py needs pdoc, which is not installed; pip install 'deeplab_tf[docs]'\n"
    assert capsys.readouterr().err == line
