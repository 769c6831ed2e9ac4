"""Messages to users."""

import pickle

import pytest

from deeplab_tf.errors import UserError, missing


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("of\ntwo lines\r\n", "of two lines "),
        ("\x1b[2J\x00 cleared\x85", " [2J  cleared "),
        ("a\u2028b\u2029", "a b "),
        ("half \ud800", "half \\ud800"),
        ("grün  雨", "grün  雨"),
    ],
)
def test_a_message_is_one_line_that_can_be_written_whatever_a_file_calls_itself(name, line):
    error = UserError(f"{name}: wrong")
    assert str(error) == f"{line}: wrong" and str(error).encode()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # as from a worker


def test_a_missing_package_is_one_too():
    assert str(missing("h5py", "a\nb")) == "a b needs h5py, which is not installed; pip install 'deeplab_tf[tf]'"
