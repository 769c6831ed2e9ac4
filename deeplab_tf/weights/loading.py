"""`load`: one way in for the weights of all makers."""

import os
import pathlib

from deeplab_tf.errors import UserError
from deeplab_tf.weights import caffe, checkpoints, imagenet, keras_files, torch_files
from deeplab_tf.weights.assigning import LoadReport, assign
from deeplab_tf.weights.source import Source

KINDS = "imagenet, *.caffemodel, *.pth, *.weights.h5, *.keras, or a TensorFlow checkpoint or a folder of them"


def load(model, source: str | os.PathLike, *, seed: int = 0, batch_norm_epsilon: float | None = None) -> LoadReport:
    """Brings weights into a model, with the colour statistics and the position of strides that belong to them.

    All is read and checked before anything of the model changes. A classifier for another number of classes is left as
    it is; so are the layers of a head that the source does not have. Load before the model is first called.

    Args:
        model: a `DeepLab`.
        source: what to load:
            "imagenet": keras.applications' weights for VGG-16, ResNet-50 or ResNet-101, downloaded by Keras;
            "x.caffemodel": of the paper's authors, for VGG-16 and ResNet-101;
            "x.pth": deeplab-pytorch's, or torchvision's ResNet-50 or -101 (needs PyTorch);
            "x.weights.h5", "x.keras", "x.h5": our own, or keras.applications';
            a folder or a file of TensorFlow checkpoints: of our own training, also the folder of the run, or the Model
            Garden's ResNet and DilatedResNet.
        seed: of the filters of fc6 and fc7 that the heads of VGG-16 with 1,024 filters draw from ImageNet's 4,096.
        batch_norm_epsilon: with which a Model Garden network was trained; None: read from its params.yaml, else 1e-3.

    Returns:
        what was taken, left and initialised, printable.

    Raises:
        UserError: there is no such file, or of no known kind, or it cannot be read, or does not fit the model. The
            model is as it was before.

    Example:
        >>> print(deeplab_tf.weights.load(model, "train2_iter_20000.caffemodel"))
    """
    name = os.fspath(source)
    try:
        read = _read(name, model, seed, batch_norm_epsilon)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Whatever a broken file makes its reader raise.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{name} cannot be read ({reason}); is the file whole, and of the kind that it is named?"
        ) from error
    return assign(model, read, name)


def save(model, path: str | os.PathLike) -> None:
    """Writes a model's weights to `path`, *.weights.h5, whole or not at all."""
    path = pathlib.Path(path).expanduser()
    if not path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: found this name of a file to write, expected one that ends in .weights.h5")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.getpid()}.{path.name}")  # Keras wants the whole suffix.
    try:
        model.save_weights(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _read(name: str, model, seed: int, batch_norm_epsilon: float | None) -> Source:
    """The reader for a source, by its name."""
    if name == "imagenet":
        return imagenet.read(model, seed)
    path = pathlib.Path(name).expanduser()
    checkpoint = (
        checkpoints.find(path) if path.is_dir() or not path.is_file() or ".index" in name or ".data-" in name else None
    )
    if checkpoint is not None:
        return checkpoints.read(checkpoint, model, batch_norm_epsilon)
    if path.is_dir():
        raise UserError(f"{path} is a folder without checkpoints; expected {KINDS}")
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; expected {KINDS}")
    if path.suffix == ".caffemodel":
        return caffe.read(path, model, seed)
    if path.suffix in (".pth", ".pt"):
        return torch_files.read(path, model)
    if path.suffix in (".h5", ".keras"):
        return keras_files.read(path, model, seed)
    raise UserError(f"{path}: files of this kind are not known; expected {KINDS}")
