"""Fixtures that every test may use."""

import os
import pathlib

# One quiet TensorFlow for all tests, on the CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


def _shared_folder(name: str) -> pathlib.Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the real files of ../shared/{name}, which are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def camvid_dir() -> pathlib.Path:
    """CamVid as it lies on disk: train/, trainannot/, val/, valannot/."""
    return _shared_folder("camvid")


@pytest.fixture(scope="session")
def voc_masks_dir() -> pathlib.Path:
    """Original VOC 2012 palette masks."""
    return _shared_folder("voc_masks")
