"""Fixtures that every test may use."""

import functools
import gc
import http.server
import os
import pathlib
import runpy
import shutil
import sys
import threading

# One quiet TensorFlow for all tests, on the CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests import helpers  # noqa: E402

# The same examples every time, however slow a machine that other work shares.
hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")

SHARED = helpers.REPOSITORY.parent / "shared"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_collection_modifyitems(config, items):
    """Tests marked `full_size` run where they are asked for, by `-m full_size` or by name."""
    if "full_size" in config.option.markexpr or any("::" in argument for argument in config.args):
        return
    large = [item for item in items if item.get_closest_marker("full_size")]
    config.hook.pytest_deselected(items=large)
    items[:] = [item for item in items if item not in large]


def pytest_collection_finish():
    """What is imported stays: without this, Python's search for garbage takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    if "keras" in sys.modules:
        helpers.draw_initial_weights_quickly()


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


CLASSES = 8  # of the data set `shapes`


def _network(scales=(1.0,), num_classes=CLASSES, **arguments):
    import keras

    from deeplab_tf import DeepLab

    keras.utils.set_random_seed(3)
    model = DeepLab("resnet_tiny", "linear", num_classes, scales=scales, batch_norm="frozen", **arguments)
    return helpers.randomise(model)


@pytest.fixture(scope="session")
def network():
    """A function that makes a resnet_tiny with a 1x1 classifier; arguments as for `DeepLab`."""
    return _network


@pytest.fixture(scope="session")
def segmenter():
    """Of the small network, single-scale, with the classes of `shapes`."""
    from deeplab_tf import Segmenter
    from deeplab_tf.data import info

    with helpers.small_network():  # whatever test asks first
        return Segmenter(_network(), info=info("shapes"))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """Where the data set `shapes` is prepared."""
    return tmp_path_factory.mktemp("tensorflow_datasets")


@pytest.fixture(scope="session")
def shapes_dir(data_dir) -> str:
    """The version directory of the prepared data set `shapes`."""
    from deeplab_tf import data

    return data.prepare("shapes", data_dir)


@pytest.fixture(scope="session", autouse=True)
def small_network():
    """Makes "resnet_tiny" a network of fewer layers still, here and in what `helpers.start_command` starts."""
    with helpers.small_network():
        yield


@pytest.fixture(scope="module")
def whole_network():
    """Makes "resnet_tiny" what it is for users again, for tests of it and of files that hold it."""
    with helpers.whole_network():
        yield


@pytest.fixture
def refused(monkeypatch, capsys):
    """A function that runs a command in this process and returns the line with which it is refused, less "error: ".

    Nothing else is printed.
    """
    from deeplab_tf.flags import FIELDS, FLAGS

    def run(command: str, *flags: str, cwd: pathlib.Path) -> str:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [command, *map(str, flags)])
        for name in FIELDS:
            FLAGS[name].unparse()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(helpers.REPOSITORY / command), run_name="__main__")
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert ended.value.code == 1 and len(lines) == 1 and not said.out
        return lines[0].removeprefix("error: ")

    yield run
    for name in FIELDS:
        FLAGS[name].unparse()


@pytest.fixture(scope="module")
def new_page():
    """A function that opens a page in Chromium, which notes its errors in `said` and its requests in `asked`."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def new():
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.said, page.asked = [], []
            page.on("console", lambda message: page.said.append(message.text))
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.on("request", lambda request: page.asked.append(request.url))
            return page

        yield new
        browser.close()


@pytest.fixture
def served(tmp_path):
    """A folder, and the address at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def photograph():
    """A function that makes a random image of patches and noise, uint8 [height, width, 3]."""
    return helpers.photograph


@pytest.fixture(scope="session")
def make_examples():
    """A function that makes examples with masks of blocks, some of them without a label, one for each size."""

    def make(sizes):
        rng = np.random.default_rng(0)
        examples = []
        for i, (height, width) in enumerate(sizes):
            blocks = np.kron(rng.choice([0, 1, 2, 5, 255], (8, 8)), np.ones((8, 8)))
            label = blocks[:height, :width].astype(np.uint8)
            image = helpers.photograph(height, width, i)
            examples.append({"image": image, "label": label, "filename": f"{i}.jpg".encode()})
        return examples

    return make
