"""The page of tools/demo.py in a browser: what it shows and offers is what the segmenter and the CRF make."""

import base64
import dataclasses
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import Segmenter, pictures
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data import info
from deeplab_tf.errors import UserError
from tests.helpers import REPOSITORY, whole_network

CRF = DenseCRF(bilateral_weight=5.25, bilateral_color_std=11, iterations=3)
LONGER_SIDE = 100


class CountingSegmenter(Segmenter):
    """Counts the runs of its network."""

    runs = 0

    def batch_without_crf(self, images):
        self.runs += 1
        return super().batch_without_crf(images)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def counting(segmenter):
    return CountingSegmenter(segmenter.model, CRF, segmenter.info)


@pytest.fixture(scope="module")
def hosts():
    """The hosts that this process looks up while the page is served."""
    found, look_up = set(), socket.getaddrinfo

    def noted(host, *args, **kwargs):
        found.add(host)
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", noted)
        yield found


@pytest.fixture(scope="module")
def address(counting, hosts):
    pytest.importorskip("gradio", reason="needs Gradio (pip install -e '.[demo]')")
    from deeplab_tf.inference.demo_page import served

    with served(counting, free_port(), LONGER_SIDE) as address:
        yield address


@pytest.fixture(scope="module")
def files(photograph, tmp_path_factory):
    """Photographs: small, large, and one that is none."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, size in (("small.png", (60, 90)), ("large.tif", (150, 200))):
        Image.fromarray(photograph(*size)).save(folder / name)
    (folder / "<b>none.jpg").write_text("no picture")
    return folder


@pytest.fixture
def page(new_page, address):
    page = new_page()
    page.goto(address)
    page.wait_for_selector("#iterations input[type=range]")
    yield page
    assert [line for line in page.said if "rror" in line] == []
    assert {url.split("/")[2] for url in page.asked if not url.startswith("data:")} == {address.split("/")[2]}
    page.close()


def after(page, act) -> None:
    """Acts, and waits until the page shows something else."""
    before = page.locator(".deeplab").inner_html()
    act()
    page.wait_for_function("before => document.querySelector('.deeplab').innerHTML != before", arg=before)


def drop(page, path) -> None:
    after(page, lambda: page.set_input_files("input[type=file]", str(path)))


def slider(page, name: str):
    return page.locator(f"#{name} input[type=range]")


def picture(page, title: str) -> np.ndarray:
    """A picture as the browser has it."""
    address = page.locator(f".deeplab img[alt^='{title}']").get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def downloaded(page, text: str) -> tuple[str, bytes]:
    """Name and content of the file behind a link."""
    with page.expect_download() as download:
        page.get_by_text(text).click()
    return download.value.suggested_filename, pathlib.Path(download.value.path()).read_bytes()


def assert_shows(page, image: np.ndarray, probabilities: np.ndarray, palette: np.ndarray) -> None:
    labels = probabilities.argmax(-1).astype(np.uint8)
    np.testing.assert_array_equal(picture(page, "Photograph"), image)
    np.testing.assert_array_equal(picture(page, "Overlay"), pictures.overlay(image, labels, palette))
    np.testing.assert_array_equal(picture(page, "Labels"), palette[labels])
    np.testing.assert_array_equal(picture(page, "Confidence"), np.rint(255 * probabilities.max(-1)))


@pytest.mark.slow
def test_a_slider_moves_the_crf_and_not_the_network(page, files, counting):
    assert "Drop a photograph" in page.locator(".deeplab").inner_text() and not page.locator(".deeplab img").count()
    for name in ("bilateral_weight", "bilateral_spatial_std", "bilateral_color_std", "spatial_weight", "spatial_std"):
        assert float(page.locator(f"#{name} input[type=number]").input_value()) == getattr(CRF, name)
    image, palette = pictures.read_photograph(files / "small.png"), counting.info.palette
    unrefined = counting.without_crf(image).probabilities
    runs = counting.runs

    drop(page, files / "small.png")
    assert counting.runs == runs + 1
    assert_shows(page, image, CRF(image, unrefined), palette)

    moved = dataclasses.replace(CRF, bilateral_weight=12, iterations=6)
    after(page, lambda: slider(page, "bilateral_weight").fill("12"))
    after(page, lambda: slider(page, "iterations").fill("6"))
    assert (moved(image, unrefined).argmax(-1) != CRF(image, unrefined).argmax(-1)).any()
    assert_shows(page, image, moved(image, unrefined), palette)
    name, mask = downloaded(page, "Mask")
    mask = Image.open(io.BytesIO(mask))
    assert name == "small.png" and mask.mode == "P" and mask.getpalette()[: palette.size] == palette.ravel().tolist()
    np.testing.assert_array_equal(np.asarray(mask), moved(image, unrefined, return_labels=True))
    name, parameters = downloaded(page, "crf.json")
    assert name == "crf.json" and json.loads(parameters) == json.loads(json.dumps(moved.parameters))

    after(page, lambda: page.get_by_text("Back to the run").click())
    assert slider(page, "bilateral_weight").input_value() == "5.25"
    assert_shows(page, image, CRF(image, unrefined), palette)
    after(page, lambda: page.get_by_label("Refine with").uncheck())
    assert_shows(page, image, unrefined, palette)
    assert not page.get_by_text("crf.json").count()
    assert counting.runs == runs + 1


@pytest.mark.slow
def test_the_legend_names_the_classes_that_occur(page, files, counting):
    drop(page, files / "small.png")
    image = pictures.read_photograph(files / "small.png")
    labels = counting(image).labels
    entries = page.locator(".legend > span").all_inner_texts()
    shown = {
        name: float(share) for name, share in (re.fullmatch(r"(\w+) <?([\d.]+)%", text).groups() for text in entries)
    }
    assert set(shown) == {counting.class_names[label] for label in np.unique(labels)}
    for name, share in shown.items():
        assert abs(share - 100 * (labels == counting.class_names.index(name)).mean()) < 0.1


def test_a_large_photograph_is_worked_on_smaller_and_its_mask_is_of_its_size(page, files, counting):
    drop(page, files / "large.tif")
    assert "200 x 150, worked on at 100 x 75" in page.locator(".deeplab").inner_text()
    image = picture(page, "Photograph")
    original = pictures.read_photograph(files / "large.tif")
    expected = np.asarray(Image.fromarray(original).resize((100, 75), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image, expected)
    _, mask = downloaded(page, "Mask")
    expected = np.kron(counting(image).labels, np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask))), expected)


def test_what_is_no_picture_is_one_line_and_the_last_one_stays(page, files, capfd):
    drop(page, files / "small.png")
    shown = page.locator(".deeplab").inner_html()
    page.set_input_files("input[type=file]", str(files / "<b>none.jpg"))
    page.get_by_text("none.jpg: cannot be read as an image (not an image, or of an unknown format)").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".deeplab").inner_html() == shown
    assert "Traceback" not in capfd.readouterr().err
    drop(page, files / "large.tif")


def test_pages_do_not_see_each_other(page, new_page, address, files):
    drop(page, files / "small.png")
    other = new_page()
    other.goto(address)
    other.wait_for_selector("#iterations input[type=range]")
    slider(other, "iterations").fill("6")
    other.wait_for_timeout(1500)
    assert not other.locator(".deeplab img").count()
    other.close()


def test_nothing_outside_this_machine_is_called(page, hosts):
    assert "127.0.0.1" in hosts and hosts <= {"127.0.0.1", None}


def test_photographs_are_gone_afterwards(counting, files):
    pytest.importorskip("gradio")
    import gradio_client

    from deeplab_tf.inference.demo_page import served

    with served(counting, free_port(), LONGER_SIDE) as address:
        client = gradio_client.Client(address, verbose=False)
        client.predict(gradio_client.handle_file(str(files / "small.png")), api_name="/segment")
        folder = pathlib.Path(os.environ["GRADIO_TEMP_DIR"])
        assert list(folder.rglob("small.png"))
    assert not folder.exists()


def test_a_parameter_that_is_no_single_number_stays(segmenter):
    pytest.importorskip("gradio")
    from deeplab_tf.inference.demo_page import build

    crf = dataclasses.replace(CRF, spatial_std=(2, 3), bilateral_spatial_std=500)
    blocks = build(Segmenter(segmenter.model, crf))
    sliders = {block.elem_id: block for block in blocks.blocks.values() if type(block).__name__ == "Slider"}
    assert "spatial_std" not in sliders and sliders["bilateral_spatial_std"].maximum == 500


def test_a_port_in_use_is_refused(tmp_path, refused, segmenter):
    pytest.importorskip("gradio")
    from deeplab_tf.inference.demo_page import check_port

    segmenter.save_description(tmp_path)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        line = refused("tools/demo.py", f"--model_dir={tmp_path}", f"--port={port}", cwd=tmp_path)
        assert line == f"--port={port}: cannot be used (Address already in use); give another, 1024 to 65535"
        with pytest.raises(UserError):
            check_port(port)
    check_port(port)


def test_without_a_run_or_gradio_one_line_says_what_to_do(tmp_path, refused, segmenter, monkeypatch):
    line = refused("tools/demo.py", cwd=tmp_path)
    assert line.startswith("--model_dir is missing") and "python train.py --flagfile=demo.flags" in line
    assert "segmenter.json is missing" in refused("tools/demo.py", f"--model_dir={tmp_path}", cwd=tmp_path)
    segmenter.save_description(tmp_path)
    import deeplab_tf.inference

    monkeypatch.delattr(deeplab_tf.inference, "demo_page", raising=False)
    monkeypatch.delitem(sys.modules, "deeplab_tf.inference.demo_page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    line = refused("tools/demo.py", f"--model_dir={tmp_path}", cwd=tmp_path)
    assert line == "tools/demo.py needs gradio, which is not installed; pip install 'deeplab_tf[demo]'"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_command_quietly(number, tmp_path, network):
    pytest.importorskip("gradio")
    with whole_network():
        Segmenter(network(), info=info("shapes")).save(tmp_path)
    port = free_port()
    command = [sys.executable, REPOSITORY / "tools/demo.py", f"--model_dir={tmp_path}", f"--port={port}"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # the tests'
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"HTTP_PROXY": "http://127.0.0.1:9"},
    )
    try:
        assert process.stdout.readline() == f"page       http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert b"gradio" in answer.read()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out == ""
    assert [line for line in err.splitlines() if line and "compiling the dense CRF" not in line] == []
