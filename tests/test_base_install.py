"""The base install: the dense CRF and the commands on folders work without TensorFlow and what comes with it."""

import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

# What only the extras install, and modules that only Unix has.
_BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Blocker())
"""
_OF_EXTRAS = (
    *("tensorflow", "keras", "h5py", "google", "setuptools", "pkg_resources", "matplotlib", "jinja2", "requests"),
    *(
        "tensorflow_datasets",
        "official",
        "orbit",
        "pycocotools",
        "apache_beam",
        "cv2",
        "gradio",
        "onnx",
        "tf2onnx",
        "torch",
    ),
    *("pydensecrf", "pandas", "sklearn", "resource", "fcntl"),
)
_BASE_MODULES = (
    *(
        "beam",
        "classes",
        "compiling",
        "counts",
        "errors",
        "files",
        "flags",
        "model_card",
        "parallel",
        "pictures",
        "run_folder",
    ),
    *(
        "crf",
        "crf.check",
        "crf.energy",
        "crf.mean_field",
        "crf.pydensecrf",
        "crf.refining",
        "crf.searching",
        "crf.search_result",
    ),
    *(
        "evaluation",
        "evaluation.scoring",
        "evaluation.tables",
        "evaluation.trimap",
        "training.recipe",
        "data.catalogue",
    ),
)


def run_without(blocked: tuple[str, ...], program: str) -> subprocess.CompletedProcess:
    """Runs a program in a Python that cannot import the blocked modules."""
    program = _BLOCKER.format(blocked=set(blocked)) + program
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=REPOSITORY)


def test_base_modules_need_nothing_of_the_extras():
    result = run_without(_OF_EXTRAS, "".join(f"import deeplab_tf.{module}\n" for module in _BASE_MODULES))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_what_is_missing_names_its_extra():
    result = run_without(
        _OF_EXTRAS,
        """
import deeplab_tf
from deeplab_tf.errors import MissingPackage
for name in ("Segmenter", "DeepLab", "serving", "weights"):
    try:
        getattr(deeplab_tf, name)
    except MissingPackage as error:
        print(error)
""",
    )
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    # The package of weights itself needs none; the networks that they are read into do.
    assert [line.split()[0] for line in lines] == [
        f"deeplab_tf.{name}" for name in ("Segmenter", "DeepLab", "serving", "models.DeepLab")
    ]
    assert all(line.endswith(", which is not installed; pip install 'deeplab_tf[tf]'") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train.py"])
def test_commands_say_which_extra_is_missing(command, tmp_path):
    script, *arguments = command.split()
    result = run_without(
        _OF_EXTRAS,
        f"import runpy; sys.argv = {[script, f'--model_dir={tmp_path}', *arguments]}; "
        f"runpy.run_path({script!r}, run_name='__main__')",
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: "), result.stderr
    assert len(result.stderr.splitlines()) == 1 and "pip install 'deeplab_tf[t" in result.stderr
