"""A trained network, optionally with the dense CRF, as one call: image in, labels and probabilities out."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data.catalogue import DatasetInfo
from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.training.run_files import CHECKPOINTS, CRF_FILE, DESCRIPTION_FILE


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What a `Segmenter` says of one image.

    Attributes:
        labels: uint8 [H, W], the most probable class of each pixel.
        probabilities: float32 [H, W, C], adding up to 1 at each pixel.
    """

    labels: np.ndarray
    probabilities: np.ndarray


class Segmenter:
    """Segments whole images of any size with a DeepLab and, where given, a dense CRF.

    Args:
        model: a `DeepLab`; images are seen at each of its `scales`.
        crf: refines the probabilities of the network; None leaves them as they are.
        info: names and colours of the classes, for those who draw.

    Example:
        >>> segmenter = deeplab_tf.Segmenter.load("runs/voc")
        >>> segmenter(image).labels  # uint8 [H, W]
    """

    def __init__(self, model: DeepLab, crf: DenseCRF | None = None, info: DatasetInfo | None = None):
        self.model = model
        self.crf = crf
        self.info = info
        self._segment = tf.function(
            self._segment_graph, input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, name="image")]
        )

    @classmethod
    def load(
        cls, model_dir: str | pathlib.Path, crf: DenseCRF | bool = False, scales: Sequence[float] | None = None
    ) -> Self:
        """The segmenter that `train.py` left in `model_dir`, with the weights of its last checkpoint.

        Args:
            model_dir: folder of the run.
            crf: a CRF; or True for that of `<model_dir>/crf.json`, or the paper's where there is no such file.
            scales: of the network's input; default: as in training.

        Raises:
            UserError: the folder holds no run, or no checkpoint yet.
        """
        model_dir = pathlib.Path(model_dir).expanduser()
        description = model_dir / DESCRIPTION_FILE
        if not description.is_file():
            raise UserError(
                f"{model_dir} holds no trained model: {DESCRIPTION_FILE} is missing; train.py writes it there"
            )
        content = json.loads(description.read_text(encoding="utf-8"))
        config = content["model"]
        if scales is not None:
            config["scales"] = list(scales)
        model = DeepLab.from_config(config)
        checkpoint = tf.train.latest_checkpoint(str(model_dir / CHECKPOINTS))
        if checkpoint is None:
            raise UserError(
                f"{model_dir / CHECKPOINTS} holds no checkpoint yet; train.py saves one every --checkpoint_every steps"
            )
        tf.train.Checkpoint(model=model).restore(checkpoint).assert_existing_objects_matched().expect_partial()
        if crf is True:
            crf_file = model_dir / CRF_FILE
            crf = DenseCRF.load(crf_file) if crf_file.is_file() else DenseCRF()
        classes = content["classes"]
        info = DatasetInfo(
            name=classes["name"],
            class_names=tuple(classes["class_names"]),
            palette=np.array(classes["palette"], np.uint8),
            ignore_label=classes["ignore_label"],
        )
        return cls(model, crf or None, info)

    def save_description(self, model_dir: str | pathlib.Path) -> None:
        """Writes what `load` needs besides a checkpoint: the configuration of the model, and the classes."""
        classes = {
            "name": self.info.name,
            "class_names": list(self.info.class_names),
            "palette": self.info.palette.tolist(),
            "ignore_label": self.info.ignore_label,
        }
        content = {"model": self.model.get_config(), "classes": classes}
        files.write_json(pathlib.Path(model_dir) / DESCRIPTION_FILE, content)

    def __call__(self, image: np.ndarray) -> Segmentation:
        """Segments one image.

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            UserError: the image is of another shape or type.
        """
        unrefined = self.without_crf(image)
        return unrefined if self.crf is None else self.refined(image, unrefined)

    def without_crf(self, image: np.ndarray) -> Segmentation:
        """What the network alone says of one image, uint8 [H, W, 3]."""
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
            raise UserError(f"image: found {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3], RGB, not empty")
        labels, probabilities = self._segment(image[np.newaxis])
        return Segmentation(labels[0].numpy(), probabilities[0].numpy())

    def refined(self, image: np.ndarray, unrefined: Segmentation) -> Segmentation:
        """What the CRF makes of the network's probabilities. Needs no network, so another thread may run it."""
        marginals = self.crf(image, unrefined.probabilities)
        return Segmentation(marginals.argmax(-1).astype(np.uint8), marginals)

    def _segment_graph(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """uint8 [1, H, W, 3] -> labels uint8 [1, H, W], probabilities float32 [1, H, W, C]."""
        logits = self.model.full_resolution(images)
        return tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8), tf.nn.softmax(logits)
