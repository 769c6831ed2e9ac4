"""DeepLab v2: a dense network shared by several scales of the image, fused by maximum (Sec. 3.2 and 4.2)."""

import json
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from deeplab_tf import run_folder
from deeplab_tf.errors import UserError
from deeplab_tf.models import efficientnet, geometry, heads, resnet, vgg
from deeplab_tf.models.architectures import BACKBONES, OUTPUT_STRIDES, heads_of
from deeplab_tf.models.atrous import IMPLEMENTATIONS
from deeplab_tf.models.preprocessing import STYLES, Preprocessing


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DeepLab(keras.Model):
    """DeepLab v2.

    Args:
        backbone: "vgg16", "resnet101", "resnet50", "efficientnet_lite0" (for laptops and phones) or "resnet_tiny".
        head: "large_fov", "aspp_s" or "aspp_l"; ResNets also have "linear" and "aspp_6_12", VGG-16 also "fc_7x7_r4",
            "fc_4x4_r4" and "fc_4x4_r8".
        num_classes: channels of the logits, background included.
        output_stride: pixels between two outputs: 8, 16 or 32.
        scales: sizes of the inputs as multiples of the image's; their score maps are fused by maximum. (1.0,) is
            single-scale.
        atrous: "dilation" or "deinterlace", equal implementations of atrous convolution; see
            `deeplab_tf.models.atrous.atrous_convolution`.
        batch_norm: "frozen", "trainable" or "sync" (over replicas). None: frozen for resnet50 and resnet101, which are
            fine-tuned, trainable for resnet_tiny, which is trained from scratch. VGG-16 has no batch norm.
        dropout: rate after fc6 and fc7 of VGG-16; the ResNet heads have no dropout.
        average_pool: VGG-16 only: whether a 3x3 average pool follows pool5, as in the LargeFOV release of 2015. The
            paper's text has none, so it is off by default. It has no parameters.
        block_style: ResNets only: "caffe" (the stride of a stage is in its first 1x1 convolution; Keras' ResNets too),
            "pytorch" or "garden" (in the 3x3 convolution, see `deeplab_tf.models.resnet.BLOCK_STYLES`).
        preprocessing: "caffe", "keras", "torch" or "lite": the colour statistics that the weights were trained with.
            `deeplab_tf.weights.describe` says which of these a weight file needs.
        name, dtype: as for any Keras model.

    Raises:
        UserError: an argument has a value that is not allowed.

    Example:
        >>> model = DeepLab("resnet101", "aspp_l", num_classes=21)
        >>> model(keras.ops.ones((1, 321, 321, 3))).shape
        (1, 41, 41, 21)
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        head: str = "aspp_l",
        num_classes: int = 21,
        output_stride: int = 8,
        scales: Sequence[float] = (0.5, 0.75, 1.0),
        atrous: str = "dilation",
        batch_norm: str | None = None,
        dropout: float = 0.5,
        average_pool: bool = False,
        block_style: str = "caffe",
        preprocessing: str = "caffe",
        name: str = "deeplab",
        dtype=None,
    ):
        _check_choice("backbone", backbone, BACKBONES)
        is_vgg = backbone == "vgg16"
        _check_choice("head", head, heads_of(backbone), backbone)
        _check_choice("output_stride", output_stride, OUTPUT_STRIDES)
        _check_choice("atrous", atrous, IMPLEMENTATIONS)
        _check_choice("batch_norm", batch_norm, (None,) if is_vgg else (None, *resnet.BATCH_NORMS), backbone)
        _check_choice("average_pool", average_pool, (False, True) if is_vgg else (False,), backbone)
        is_resnet = backbone.startswith("resnet")
        _check_choice("block_style", block_style, resnet.BLOCK_STYLES if is_resnet else ("caffe",), backbone)
        _check_choice("preprocessing", preprocessing, STYLES)
        _check_numbers(num_classes, dropout)
        super().__init__(name=name, dtype=dtype, autocast=False)
        self.backbone = backbone
        self.head = head
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.scales = check_scales(scales)
        self.atrous = atrous
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.average_pool = average_pool
        self.block_style = block_style
        self.preprocessing = preprocessing

        self.preprocess = Preprocessing(preprocessing, name="preprocessing")
        images = keras.Input((None, None, 3), name="preprocessed_images", dtype="float32")
        if backbone == "vgg16":
            features = vgg.vgg16(images, output_stride, atrous, average_pool, self.dtype_policy)
            scores, names = heads.vgg_head(
                features, head, num_classes, output_stride, dropout, atrous, self.dtype_policy
            )
        else:
            norm = batch_norm or ("trainable" if backbone == "resnet_tiny" else "frozen")
            if backbone == "efficientnet_lite0":
                features = efficientnet.efficientnet_lite0(images, output_stride, norm, atrous, self.dtype_policy)
            else:
                features = resnet.resnet(images, backbone, output_stride, norm, block_style, atrous, self.dtype_policy)
            scores, names = heads.resnet_head(features, head, num_classes, output_stride, atrous, self.dtype_policy)
        self.classifier_layers = names
        self.network = keras.Model(images, scores, name="network")
        self.build()

    def build(self, input_shape=None) -> None:
        """Nothing is left to build: every weight exists since construction."""
        self.built = True

    def call(self, images, training: bool = False):
        """Scores every output position of a batch of images.

        Args:
            images: [B, H, W, 3], RGB in 0..255, uint8 or float.
            training: whether dropout and trainable batch norm are in training mode.

        Returns:
            logits, float32 [B, (H-1)//output_stride + 1, (W-1)//output_stride + 1, num_classes].
        """
        return self.score_maps(images, training=training)["fused"]

    def score_maps(
        self,
        images,
        training: bool = False,
        crop: bool = True,
        network: Callable[[Any], Any] | None = None,
        scales: Sequence[float] | None = None,
        pad_to: int = 1,
    ) -> dict:
        """Scores a batch of images, scale by scale and fused.

        Every image is first padded to the grid; each scale is an aligned resize of that, padded to the grid again.

        Args:
            images: [B, H, W, 3], RGB in 0..255, uint8 or float.
            training: as for `call`.
            crop: whether the maps end at the last output on the image. If not, they reach over its border to the end
                of the padding, as interpolation to full resolution needs.
            network: scores the preprocessed images of one scale in the place of the model's own network.
            scales: sizes of the inputs; default: the model's own `scales`.
            pad_to: height and width, in pixels, that smaller images are padded to; the release sees images as 513x513.

        Returns:
            float32 score maps by name. "fused" is the maximum over the scales on the grid of the image. With several
            scales there is also each one's own map, "scale_0.5", "scale_0.75", "scale_1", on the grid of the scaled
            image: 21, 31 and 41 positions for 321 pixels; `geometry.map_pixels` tells where on the image they sit.
        """
        images = ops.convert_to_tensor(images)
        if len(images.shape) != 4 or images.shape[-1] != 3:
            raise UserError(f"images: found shape {tuple(images.shape)}, expected [B, H, W, 3]")
        scales = self.scales if scales is None else check_scales(scales)
        size = ops.shape(images)[1:3]
        images = geometry.pad_to_grid(self.preprocess(images), self.output_stride, pad_to)
        padded = ops.shape(images)[1:3]

        maps, fused = {}, None
        for scale in scales:
            scaled = [geometry.scaled_size(side, scale) for side in padded]
            inputs = images  # A graph that does not know their size would resize them to the same size.
            if scale != 1.0:
                inputs = geometry.pad_to_grid(geometry.resize(images, *scaled), self.output_stride)
            scores = network(inputs) if network else self.network(inputs, training=training)
            if len(scales) > 1:
                height, width = (
                    geometry.scaled_map_size(*sides, self.output_stride)
                    for sides in zip(size if crop else padded, padded, scaled, strict=True)
                )
                maps[f"scale_{scale:g}"] = scores[:, :height, :width]
            if scale != 1.0:
                scores = geometry.sample(
                    scores,
                    *(
                        geometry.aligned_positions(geometry.map_size(side, self.output_stride), side, scaled_side)
                        for side, scaled_side in zip(padded, scaled, strict=True)
                    ),
                )
            fused = scores if fused is None else ops.maximum(fused, scores)
        if crop:
            height, width = (geometry.map_size(side, self.output_stride) for side in size)
            fused = fused[:, :height, :width]
        return maps | {"fused": fused}

    def centred_score_map(self, images, network: Callable[[Any], Any], scales: Sequence[float] | None = None):
        """Scores a batch of images as deeplab-pytorch does: no padding, all maps resized with `align_corners=False`.

        A scaled input has the size int(scale * size). The score maps are fused by maximum on the grid of scale 1, or of
        the largest scale where 1 is not among them.

        Args:
            images: [B, H, W, 3], RGB in 0..255, uint8 or float.
            network: scores the preprocessed images of one scale, which may have any size, such as a
                `FoldedNetwork(model, any_size=True)`.
            scales: sizes of the inputs; default: the model's own `scales`.

        Returns:
            float32 [B, h, w, num_classes]; `geometry.resize(..., align_corners=False)` brings it to the pixels.
        """
        images = self.preprocess(ops.convert_to_tensor(images))
        size = ops.shape(images)[1:3]
        maps = {}
        for scale in self.scales if scales is None else check_scales(scales):
            inputs = images
            if scale != 1.0:
                inputs = geometry.resize(images, *(_rounded_down(side, scale) for side in size), align_corners=False)
            maps[scale] = network(inputs)
        grid = ops.shape(maps[1.0 if 1.0 in maps else max(maps)])[1:3]
        fused = None
        for scores in maps.values():
            scores = geometry.resize(scores, *grid, align_corners=False)
            fused = scores if fused is None else ops.maximum(fused, scores)
        return fused

    def save_own_variables(self, store) -> None:
        """Writes the configuration into weight files, which otherwise hold numbers only; called by Keras."""
        store["config"] = np.frombuffer(json.dumps(self.get_config()).encode(), np.uint8)

    def load_own_variables(self, store) -> None:
        """Nothing to read: the weights are the layers'; called by Keras."""

    @classmethod
    def from_config(cls, config: dict) -> "DeepLab":
        """The model of a configuration, also of those that named `block_style` "bottleneck"."""
        return super().from_config(current_config(config))

    @classmethod
    def of_run(cls, model_dir: str | os.PathLike) -> "DeepLab":
        """The network that the folder of a run describes, with fresh weights.

        Raises:
            UserError: it holds no run, or the description is damaged.
        """
        config = run_folder.read_description(model_dir)["model"]
        try:
            model = cls.from_config(config)
            if not isinstance(model.dtype_policy, keras.DTypePolicy):  # Keras makes None of what it does not know.
                raise ValueError(f"its dtype is {model.dtype_policy!r}")
            return model
        except Exception as error:  # Keras raises many kinds, also other ones for a UserError of the constructor
            reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"{os.path.join(model_dir, run_folder.DESCRIPTION_FILE)} describes no network ({reason}); the command "
                "that trained this run writes it again"
            ) from error

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "backbone": self.backbone,
            "head": self.head,
            "num_classes": self.num_classes,
            "output_stride": self.output_stride,
            "scales": list(self.scales),
            "atrous": self.atrous,
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
            "average_pool": self.average_pool,
            "block_style": self.block_style,
            "preprocessing": self.preprocessing,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }


def current_config(config: dict) -> dict:
    """A configuration of any version in today's words: `block_style` was "bottleneck", its "pytorch" "torchvision"."""
    config = dict(config)
    if "bottleneck" in config:
        style = config.pop("bottleneck")
        config["block_style"] = "pytorch" if style == "torchvision" else style
    return config


def _rounded_down(size: geometry.Size, scale: float) -> geometry.Size:
    """The size of a scaled side, at least 1."""
    if isinstance(size, int):
        return max(1, int(scale * size))
    return ops.maximum(1, ops.cast(ops.cast(size, "float64") * scale, "int32"))


def _check_choice(argument: str, found, allowed: Collection, backbone: str = "") -> None:
    if found not in allowed:
        where = f" for {backbone}" if backbone else ""
        raise UserError(f"{argument}={found!r} is not allowed{where}; expected one of {', '.join(map(repr, allowed))}")


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Returns the scales of the input as floats.

    Raises:
        UserError: there is none, one is not positive, or one stands there twice.
    """
    if len(scales) == 0 or len(set(scales)) < len(scales) or min(scales) <= 0:
        raise UserError(
            f"scales={scales!r}: expected one or more positive numbers, each once, such as (0.5, 0.75, 1.0)"
        )
    return tuple(float(scale) for scale in scales)


def _check_numbers(num_classes: int, dropout: float) -> None:
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UserError(f"num_classes={num_classes!r}: expected a whole number of at least 1")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout={dropout!r}: expected a rate of at least 0 and below 1")
