"""A trained network, optionally with the dense CRF, as one call: image in, labels and probabilities out."""

import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from deeplab_tf import run_folder
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.dense_crf import read_searched_for
from deeplab_tf.data.augmentation import resize_images
from deeplab_tf.errors import UserError
from deeplab_tf.inference.graph import SegmentationGraph
from deeplab_tf.inference.tiling import Tiling
from deeplab_tf.models import DeepLab
from deeplab_tf.models.deeplab import check_scales


class Segmentation:
    """The result for one image.

    Args:
        probabilities: float32 [H, W, C] of each class at each pixel, adding up to 1 at each pixel.
    """

    def __init__(self, probabilities: np.ndarray):
        self._given = probabilities

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The most probable class of each pixel, uint8 [H, W]."""
        return self.probabilities.argmax(-1).astype(np.uint8)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Of each class at each pixel, float32 [H, W, C], adding up to 1 at each pixel."""
        return self._given


class NetworkSegmentation(Segmentation):
    """A result that is kept as score maps: labels and probabilities are computed from them when first asked for.

    Args:
        labels: function of the score maps, height and width.
        probabilities: likewise. They take 4C times the memory of the labels.
        arguments: score maps of the image, float32 [1, V, h, w, C], its height and its width in pixels.
    """

    def __init__(self, labels: Callable[..., tf.Tensor], probabilities: Callable[..., tf.Tensor], arguments: tuple):
        self._compute_labels = labels
        self._compute_probabilities = probabilities
        self._arguments = arguments

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The class of the highest score of each pixel, uint8 [H, W]."""
        return self._compute_labels(*self._arguments)[0].numpy()

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Of each class at each pixel, float32 [H, W, C], adding up to 1 at each pixel."""
        return self._compute_probabilities(*self._arguments)[0].numpy()


class Segmenter:
    """Segments whole images of any size with a DeepLab and, where given, a dense CRF.

    Args:
        model: a `DeepLab`.
        crf: refines the probabilities of the network; None leaves them as they are.
        info: names and colours of the classes, needed for drawing.
        input_scale: images are scaled by it first, as in training (`Recipe.input_scale`), and the probabilities back.
        scales: of the network's input, whose score maps are fused by maximum (Sec. 3.2); None: the model's own.
        mirror: whether the network sees the mirrored image too; the scores of the two are averaged at every pixel.
        vertical_flip: whether the network sees the image upside down too; beside `mirror`, all four views.
        tile_size: height and width, in pixels, of the tiles that larger images are cut into, so that the memory of the
            network does not grow with the image; None: no tiles. Rounded up to `Tiling`'s grid.
        tile_overlap: pixels by which tiles overlap and are blended, see `Tiling`.
        pad_to: height and width, in pixels, that smaller images are padded to with the mean colour at the right and the
            bottom, as the release pads to 513; None: to the grid of the network.
        align_corners: whether all maps are interpolated with corners aligned, on the grid of the method, as in Caffe.
            False: as in deeplab-pytorch, by PyTorch's `align_corners=False` and without padding, for its weights.
        fixed_weights: whether the weights stay as they are now: they become constants, folded and brought into the
            processor's order once, which takes their memory a second time. Otherwise later changes are seen.

    Attributes:
        checkpoint: name of the checkpoint that the weights come from, such as "ckpt-20000"; None unless made by `load`.
        model_dir: folder of the run that it comes from; likewise.
        loader: loads it again, in another process; likewise.
        train_masks: the masks that the network was trained on, where they were not the data set's own
            (`TrainMasks.description`); else None.

    Raises:
        UserError: the overlap does not fit the tiles, a scale is not positive, or the model has more than 256 classes,
            which do not fit the labels.

    Example:
        >>> segmenter = deeplab_tf.Segmenter.load("runs/voc")
        >>> segmenter(image).labels  # uint8 [H, W]
    """

    def __init__(
        self,
        model: DeepLab,
        crf: DenseCRF | None = None,
        info: DatasetInfo | None = None,
        *,
        input_scale: float = 1.0,
        scales: Sequence[float] | None = None,
        mirror: bool = False,
        vertical_flip: bool = False,
        tile_size: int | None = None,
        tile_overlap: int = 128,
        pad_to: int | None = None,
        align_corners: bool = True,
        fixed_weights: bool = False,
    ):
        if model.num_classes > 256:
            raise UserError(f"num_classes={model.num_classes}: labels are uint8, expected at most 256 classes")
        self.model = model
        self.crf = crf
        self.info = info
        self.input_scale = input_scale
        self.scales = model.scales if scales is None else check_scales(scales)
        self.mirror = mirror
        self.vertical_flip = vertical_flip
        if pad_to and tile_size:
            raise UserError(f"--pad_to={pad_to}: images are cut into tiles (--tile_size={tile_size}), not padded")
        if not align_corners and (pad_to or tile_size):
            other = f"--pad_to={pad_to}" if pad_to else f"--tile_size={tile_size}"
            raise UserError(f"{other}: needs the grid of aligned corners; leave out --eval_align_corners=false")
        self.pad_to = pad_to
        self.align_corners = align_corners
        self.tiling = Tiling(tile_size, tile_overlap, model.output_stride, self.scales) if tile_size else None
        self.checkpoint: str | None = None
        self.model_dir: pathlib.Path | None = None
        self.loader: Callable[[], Segmenter] | None = None
        self.train_masks: dict[str, Any] | None = None

        graph = self.graph(model.compute_dtype if fixed_weights else None)
        of_image = [
            tf.TensorSpec([1, len(graph.views), None, None, graph.channels]),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
        ]
        self._score_maps = tf.function(
            graph.score_maps, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False
        )
        self._labels = tf.function(graph.labels, input_signature=of_image, autograph=False)
        self._probabilities = tf.function(graph.probabilities, input_signature=of_image, autograph=False)

    def graph(self, precision: str | None = None) -> SegmentationGraph:
        """The graph of this segmenter up to the CRF; see `SegmentationGraph` for the precision."""
        return SegmentationGraph(
            self.model,
            self.scales,
            self.mirror,
            self.tiling,
            precision,
            self.pad_to or 1,
            self.align_corners,
            self.vertical_flip,
        )

    @classmethod
    def load(
        cls,
        model_dir: str | pathlib.Path,
        crf: DenseCRF | bool = False,
        scales: Sequence[float] | None = None,
        checkpoint: str = "latest",
        **options: Any,
    ) -> Self:
        """The segmenter that `train.py` left in `model_dir`.

        Args:
            model_dir: folder of the run.
            crf: a CRF; or True for that of `<model_dir>/crf.json`, or the default one where there is no such file.
            scales: of the network's input; None: as in training.
            checkpoint: "latest", or "best", the one with the highest validation mean IoU.
            **options: further ones of `Segmenter`: input_scale, mirror, vertical_flip, tile_size,
                tile_overlap, pad_to, align_corners; fixed_weights is true here.

        Raises:
            UserError: the folder holds no run, or no checkpoint yet.
        """
        model_dir = pathlib.Path(model_dir).expanduser()
        content, model = run_folder.read_description(model_dir), DeepLab.of_run(model_dir)
        best = run_folder.best_checkpoint(model_dir)
        paths = run_folder.checkpoints(model_dir) if checkpoint == "latest" else [best] if best else []
        path = run_folder.restore_newest(tf.train.Checkpoint(model=model), paths)
        if path is None:
            raise UserError(
                f"{model_dir} holds no {checkpoint} checkpoint yet; train.py saves one every --checkpoint_every"
            )
        searched_for = {}
        if crf is True:
            crf_file = model_dir / run_folder.CRF_FILE
            searched_for = read_searched_for(crf_file)
            crf = DenseCRF.load(crf_file) if crf_file.is_file() else DenseCRF()
        info = DatasetInfo.from_json(content["classes"])
        segmenter = cls(model, crf or None, info, scales=scales, **{"fixed_weights": True} | options)
        segmenter.loader = functools.partial(cls.load, model_dir.resolve(), crf, scales, checkpoint, **options)
        segmenter.checkpoint, segmenter.model_dir = pathlib.Path(path).name, model_dir
        segmenter.train_masks = content.get("train_masks")
        if searched_for and searched_for.get("fingerprint") != segmenter.settings["fingerprint"]:
            print(
                f"warning: {crf_file} was searched for another network ({searched_for.get('checkpoint')}, found "
                f"{segmenter.checkpoint}); tools/search_crf.py searches again",
                file=sys.stderr,
            )
        return segmenter

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; their numbers where there is no `info`."""
        return tuple(self.info.class_names if self.info else map(str, range(self.model.num_classes)))

    def classes_to_json(self) -> dict[str, Any]:
        """Names, colours and the ignore label, for the files that go with a network.

        Raises:
            UserError: there is no `info`.
        """
        if self.info is None:
            raise UserError("the segmenter has no info: give the classes, Segmenter(model, info=DatasetInfo(...))")
        return self.info.to_json()

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the labels depend on, in terms of JSON, for files that say what made them.

        Keys: checkpoint (its name, or None), fingerprint (of the network and its weights), train_masks (what it was
        trained on in place of the data set's own masks, or None), input_scale, scales, mirror, vertical_flip,
        tile_size and tile_overlap (as used, rounded up to the grid; None without tiles), pad_to, align_corners, crf
        (its parameters, or None).
        """
        return {
            "checkpoint": self.checkpoint,
            "fingerprint": run_folder.fingerprint(self.model),
            "train_masks": self.train_masks,
            "input_scale": self.input_scale,
            "scales": list(self.scales),
            "mirror": self.mirror,
            "vertical_flip": self.vertical_flip,
            "tile_size": self.tiling and self.tiling.size,
            "tile_overlap": self.tiling and self.tiling.overlap,
            "pad_to": self.pad_to,
            "align_corners": self.align_corners,
            "crf": self.crf and self.crf.parameters,
        }

    def __repr__(self) -> str:
        model = self.model
        parts = [f"{model.backbone} {model.head}", f"{model.num_classes} classes", f"scales {self.scales}"]
        parts += [f"input scale {self.input_scale:g}"] if self.input_scale != 1 else []
        parts += ["mirror"] if self.mirror else []
        parts += ["vertical flip"] if self.vertical_flip else []
        parts += [f"tiles of {self.tiling.size} overlapping by {self.tiling.overlap}"] if self.tiling else []
        parts += [f"padded to {self.pad_to}"] if self.pad_to else []
        parts += [] if self.align_corners else ["corners not aligned"]
        parts += [repr(self.crf)] if self.crf else []
        return f"Segmenter({', '.join(parts)})"

    def save_description(self, model_dir: str | pathlib.Path) -> None:
        """Writes what `load` needs besides a checkpoint: the configuration of the model, and the classes."""
        run_folder.write_description(model_dir, self.model.get_config(), self.classes_to_json(), self.train_masks)

    def save(self, model_dir: str | pathlib.Path) -> None:
        """Writes what `load` reads: the description and the weights, as a checkpoint. For weights from elsewhere."""
        self.save_description(model_dir)
        folder = pathlib.Path(model_dir) / run_folder.CHECKPOINTS
        tf.train.CheckpointManager(tf.train.Checkpoint(model=self.model), str(folder), 1).save(0)

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
        """Segments one image, uint8 [H, W, 3], with the network alone."""
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
            raise UserError(f"image: found {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3], RGB, not empty")
        return self.batch_without_crf(image[np.newaxis])[0]

    def batch_without_crf(self, images: np.ndarray) -> list[Segmentation]:
        """Segments images of one size, uint8 [B, H, W, 3], with the network alone, in one call of it."""
        if self.input_scale == 1:
            return self._at_own_size(images)
        size = images.shape[1:3]
        scaled = resize_images(images, [max(1, round(self.input_scale * side)) for side in size]).numpy()
        of_scaled = [segmentation.probabilities for segmentation in self._at_own_size(scaled)]
        return [Segmentation(tf.image.resize(probabilities, size).numpy()) for probabilities in of_scaled]

    def _at_own_size(self, images: np.ndarray) -> list[Segmentation]:
        height, width = images.shape[1:3]
        score_maps = self._score_maps(images)
        return [
            NetworkSegmentation(self._labels, self._probabilities, (score_maps[i : i + 1], height, width))
            for i in range(len(images))
        ]

    def refined(self, image: np.ndarray, unrefined: Segmentation) -> Segmentation:
        """Refines the result of the network with the CRF. Needs no network, so another thread may run it."""
        return Segmentation(self.crf(image, unrefined.probabilities))
