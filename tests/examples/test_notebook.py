"""The notebook runs from its first cell to its last with fewer steps, and what it exports scores as it says."""

import io
import json
import os
import pathlib
import re

import nbclient
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.counts import ImageCounts
from tests.helpers import REPOSITORY

NOTEBOOK = REPOSITORY / "examples/train_on_a_folder.ipynb"
PARAMETERS = {"STEPS": 60, "IMAGES": 30, "CROP_SIZE": 97, "SEARCH_IMAGES": 1}
# What the notebook has found, for this test.
TELL = """
import json
print(json.dumps({
    "losses": list(losses.values()), "validations": len(validations), "before": before.network.mean_iou,
    "after": after.final.mean_iou, "searched": [found.without_crf, found.best.mean_iou], "agreement": float(agreement),
    "labels": np.unique(prediction.labels).tolist(), "files": list(after.image_counts.filenames),
}))
"""


def read() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def place_of_parameters(notebook: nbformat.NotebookNode) -> int:
    (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    return place


def test_it_is_stored_without_results_and_its_links_lead_somewhere():
    notebook = read()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    names = set(re.findall(r"^(\w+) =", notebook.cells[place_of_parameters(notebook)].source, re.MULTILINE))
    assert names == {"WORK", "PHOTOS", *PARAMETERS}
    links = [link for cell in notebook.cells for link in re.findall(r"\]\(([^)\s]+)\)", cell.source)]
    assert len(links) > 4 and all((NOTEBOOK.parent / link).is_file() for link in links)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[pathlib.Path, dict, list]:
    """The folder in which the notebook was executed, what it found, and all its outputs."""
    folder, notebook = tmp_path_factory.mktemp("notebook"), read()
    values = "\n".join(f"{name} = {value}" for name, value in PARAMETERS.items())
    notebook.cells.insert(place_of_parameters(notebook) + 1, nbformat.v4.new_code_cell(values))
    notebook.cells.append(nbformat.v4.new_code_cell(TELL))
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"IPYTHONDIR": str(folder / "ipython")})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return folder, json.loads(notebook.cells[-1].outputs[-1]["text"]), outputs


@pytest.mark.slow
def test_it_learns_and_the_crf_helps(executed):
    _, found, _ = executed
    losses = found["losses"]
    assert len(losses) >= 6 and np.mean(losses[-2:]) < 0.7 * losses[0]
    assert found["validations"] == 6 and len(found["files"]) == 6
    assert found["searched"][1] > found["searched"][0] and found["after"] > found["before"] > 0.25


@pytest.mark.slow
def test_what_it_exports_scores_as_the_notebook_says(executed):
    """The masks that the SavedModel returns for the photographs, against the masks in the folder."""
    folder, found, _ = executed
    work = folder / "garden"
    names = (work / "photos/classes.txt").read_text().split()
    assert len(list((work / "photos/images").iterdir())) == PARAMETERS["IMAGES"]
    served = tf.saved_model.load(str(work / "exported/1")).signatures["serve_png"]
    confusion = np.zeros((len(names), len(names)), int)
    for name in found["files"]:
        answer = served(image_bytes=tf.constant([(work / "photos/images" / name).read_bytes()]))
        labels = np.asarray(Image.open(io.BytesIO(answer["mask_png_bytes"].numpy()[0])))
        truth = np.asarray(Image.open((work / "photos/masks" / name).with_suffix(".png")))
        np.add.at(confusion, (truth, labels), 1)
    hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    assert np.mean((hits / union)[union > 0]) == pytest.approx(found["after"], abs=0.002)
    only_soil = confusion.sum(1)[0] / confusion.sum() / (confusion.sum(1) > 0).sum()
    assert found["after"] > only_soil + 0.1
    assert found["agreement"] > 0.998 and set(found["labels"]) <= set(range(len(names)))


@pytest.mark.slow
def test_it_shows_pictures_and_leaves_a_run_that_the_commands_read(executed):
    folder, found, outputs = executed
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5  # the contact sheet, the curves, two panels, the new photograph
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text and not re.search(r"^(WARNING|INFO|[IW]\d{4})\b", text, re.MULTILINE)
    run = folder / "garden/run"
    assert json.loads((run / "evaluation_best.json").read_text())["crf"]["mean_iou"] == found["after"]
    assert list(ImageCounts.load(run / "evaluation_best_images.npz").filenames) == found["files"]
    assert json.loads((run / "crf.json").read_text())
    assert "--backbone=efficientnet_lite0" in (run / "config.flags").read_text()
