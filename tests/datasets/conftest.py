"""Small raw files in real formats."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import data


class Raw:
    """Writes raw files under a folder, makes a data set of them, and reads it back."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.data_dir = folder / "raw", folder / "data"

    def path(self, name):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name, *lines):
        self.path(name).write_text("\n".join(lines) + "\n")
        return str(self.folder / name)

    def image(self, name, height=20, width=30, seed=0):
        """A picture of noise, JPEG or PNG by its suffix."""
        array = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(array).save(self.path(name))
        return self.path(name)

    def mask(self, name, mask, mode=None):
        """A mask of class indices: grey, or with a palette (mode "P"); or of colours."""
        image = Image.fromarray(np.asarray(mask, np.uint8))
        if mode == "P":
            image.putpalette(np.random.RandomState(5).randint(0, 256, 768).astype(np.uint8).tobytes())
        image.save(self.path(name))
        return self.path(name)

    def prepare(self, name, **options):
        return data.prepare(name, self.data_dir, self.folder, **options)

    def examples(self, directory, split):
        """Examples of a split by file name."""
        examples = data.evaluation_pipeline(directory, split).as_numpy_iterator()
        return {example["filename"].decode(): example for example in examples}

    def left_behind(self):
        """What lies in the data directory."""
        return sorted(str(path.relative_to(self.data_dir)) for path in self.data_dir.rglob("*"))


@pytest.fixture
def raw(tmp_path):
    return Raw(tmp_path)


@pytest.fixture
def grid():
    """A function that makes a mask in which the given values occur, in blocks."""

    def make(values, height=20, width=30):
        columns = np.array(values, np.uint8)[np.arange(width) * len(values) // width]
        return np.tile(columns, (height, 1))

    return make


@pytest.fixture
def decoded():
    """A function that reads an image file with PIL."""
    return lambda path: np.asarray(Image.open(io.BytesIO(pathlib.Path(path).read_bytes())).convert("RGB"))
