"""Public weight files by name: found in the folder of weights, or fetched from a server on this machine."""

import dataclasses
import hashlib
import pathlib
import zipfile

import numpy as np
import pytest
import torch

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab, weights
from deeplab_tf.data import info
from deeplab_tf.errors import UserError
from deeplab_tf.models.architectures import BACKBONES
from deeplab_tf.weights import catalogue
from deeplab_tf.weights.catalogue import Address, PublicFile
from tests.helpers import REPOSITORY, randomise

pytestmark = pytest.mark.usefixtures("whole_network")


@pytest.fixture
def entry(served, monkeypatch) -> PublicFile:
    """A file of a tiny DeepLab v2 on the server, in the catalogue as "mine"."""
    folder, address = served
    network = randomise(pytorch_networks.ResNet("resnet_tiny", 5))
    torch.save({f"base.{name}": tensor for name, tensor in network.state_dict().items()}, folder / "x.pth")
    digest = hashlib.sha256((folder / "x.pth").read_bytes()).hexdigest()
    mine = PublicFile(
        "mine", "x.pth", "this test", {"backbone": "resnet_tiny"}, (Address(f"{address}/x.pth", "this test"),),
        checksum=f"sha256:{digest[:8]}",
    )  # fmt: skip
    monkeypatch.setitem(catalogue._BY_NAME, "mine", mine)
    return mine


def change(monkeypatch, entry: PublicFile, **changes) -> PublicFile:
    changed = dataclasses.replace(entry, **changes)
    monkeypatch.setitem(catalogue._BY_NAME, "mine", changed)
    return changed


def test_a_name_is_fetched_once_and_loaded(entry, served, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DEEPLAB_TF_WEIGHTS", str(tmp_path / "weights"))
    needs = weights.describe("mine")
    assert needs["head"] == "aspp_l" and needs["num_classes"] == 5
    assert "x.pth" in capfd.readouterr().err  # its progress
    (served[0] / "x.pth").rename(tmp_path / "gone.pth")
    report = weights.load(DeepLab(**needs), "mine")
    assert not report.initialised and "mine: this test" in str(report)
    assert [file.name for file in (tmp_path / "weights").iterdir()] == ["x.pth"]
    with pytest.raises(UserError, match="mine: http.*x.pth: cannot be downloaded .*; get it by other means and put it"):
        weights.describe("mine", weights_dir=tmp_path / "elsewhere")


def test_a_file_got_by_hand_is_found(entry, served, tmp_path, monkeypatch):
    page = Address("https://example.org/page", "this test", by_hand=True)
    change(monkeypatch, entry, file="of/x.pth", addresses=(page,))
    with pytest.raises(
        UserError, match=f"mine: get it from https://example.org/page and put it at {tmp_path}/w/of/x.pth"
    ):
        weights.describe("mine", weights_dir=tmp_path / "w")
    (tmp_path / "w/of").mkdir(parents=True)
    (served[0] / "x.pth").rename(tmp_path / "w/of/x.pth")
    assert weights.describe("mine", weights_dir=tmp_path / "w")["num_classes"] == 5
    (tmp_path / "w/of/x.pth").write_bytes(b"another")
    with pytest.raises(UserError, match="its sha256 is .*, expected .*; it is not mine: remove it, or give its path"):
        weights.describe("mine", weights_dir=tmp_path / "w")


def test_what_is_not_the_file_is_not_kept(entry, served, tmp_path):
    folder, _ = served
    (folder / "x.pth").write_bytes(b"a page that asks for a password")
    with pytest.raises(
        UserError, match="its sha256 is .*it came from http.*damaged, or another file than before; get it"
    ):
        weights.describe("mine", weights_dir=tmp_path / "w")
    assert not list((tmp_path / "w").iterdir())


def test_the_next_address_is_tried_and_a_zip_file_is_opened(entry, served, tmp_path, monkeypatch):
    folder, address = served
    with zipfile.ZipFile(folder / "all.zip", "w") as content:
        content.write(folder / "x.pth", "models/x.pth")
        content.writestr("other.txt", "other")
    urls = (f"{address}/nothing.pth", f"{address}/all.zip")
    change(monkeypatch, entry, addresses=tuple(Address(url, "this test") for url in urls))
    assert weights.describe("mine", weights_dir=tmp_path / "w")["num_classes"] == 5
    assert [file.name for file in (tmp_path / "w").iterdir()] == ["x.pth"]
    (folder / "all.zip").write_bytes(b"no zip file")
    with pytest.raises(UserError, match="nothing.pth: cannot be downloaded .*all.zip cannot be unpacked"):
        weights.describe("mine", weights_dir=tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_what_the_catalogue_knows_wins_over_a_guess(entry, tmp_path, monkeypatch):
    """AdaptSegNet's checkpoints look like ADVENT's, but only two of their branches act."""
    two = change(monkeypatch, entry, network={"backbone": "resnet_tiny", "head": "aspp_6_12", "scales": (1.0,)})
    model = DeepLab(**weights.describe("mine", weights_dir=tmp_path))
    assert (model.head, model.scales) == ("aspp_6_12", (1.0,))
    report = weights.load(model, "mine", weights_dir=tmp_path)
    assert report.left == ("fc1_c2", "fc1_c3") and not report.initialised
    with pytest.raises(UserError, match="build the model with head='aspp_6_12'"):
        weights.load(DeepLab(**{**two.network, "head": "aspp_l", "num_classes": 5}), "mine", weights_dir=tmp_path)


def test_a_path_of_the_same_name_wins_and_a_wrong_name_is_told_what_is_like_it(entry, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such file or folder.*did you mean deeplab_pytorch_vocaug"):
        weights.describe("deeplab_pytorch_voc")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine is a folder without checkpoints"):
        weights.describe("mine")


def test_every_entry_is_whole():
    names = [entry.name for entry in catalogue.CATALOGUE]
    files = [entry.file for entry in catalogue.CATALOGUE]
    assert len(set(names)) == len(names) and len(set(files)) == len(files)
    for entry in catalogue.CATALOGUE:
        assert entry.network["backbone"] in BACKBONES and entry.network["preprocessing"]
        assert entry.trained and entry.addresses and all(address.source for address in entry.addresses)
        assert entry.checksum == "" or entry.checksum.split(":")[0] in ("md5", "sha256")
        assert pathlib.Path(entry.file).suffix in (".caffemodel", ".pth", ".h5", ".ckpt")
        if entry.classes:
            assert info(entry.classes).num_classes == entry.network["num_classes"], entry.name


@pytest.mark.slow
def test_the_networks_can_be_built(monkeypatch):
    """The arguments are ones that `DeepLab` takes, seen without building the networks themselves."""
    seen = {tuple(sorted(entry.network.items())) for entry in catalogue.CATALOGUE}
    small = [dict(network) for network in seen if dict(network)["backbone"] == "resnet101"]
    for network in small:
        DeepLab(**network | {"backbone": "resnet_tiny"})


def test_the_documentation_holds_the_catalogue():
    assert catalogue.as_markdown() in (REPOSITORY / "docs/weights.md").read_text()


@pytest.mark.parametrize("key, expected", [(None, 0), ("model", 0), ("ema_model", 1)])
def test_the_weights_of_a_teacher_are_read_on_request(key, expected, tmp_path):
    networks = [randomise(pytorch_networks.ResNet("resnet_tiny", 5), seed) for seed in (1, 2)]
    content = {"model": networks[0].state_dict(), "ema_model": networks[1].state_dict(), "iteration": 3}
    torch.save(content, tmp_path / "x.pth")
    model = DeepLab("resnet_tiny", "aspp_l", 5)
    report = weights.load(model, tmp_path / "x.pth", key=key)
    bias = networks[expected].aspp["c0"].bias.detach()
    np.testing.assert_array_equal(model.network.get_layer("fc1_c0").bias, bias)
    assert ("--weights_key=ema_model" in str(report)) == (key is None)
    with pytest.raises(UserError, match="holds no weights called 'teacher'; found model, ema_model"):
        weights.load(model, tmp_path / "x.pth", key="teacher")


def test_imagenet_asks_which_network():
    with pytest.raises(UserError, match="say which one by backbone .*vgg16, resnet50, resnet101, efficientnet_lite0"):
        weights.describe("imagenet")
