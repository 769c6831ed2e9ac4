"""The settings of a training, each documented once; the flags of train.py are made from them.

A field of `Recipe` has, in its `metadata`:

    kind        "string", "enum" (a string of `choices`), "bool", "integer", "float", "integers" or "numbers" (tuples)
    help        one or two sentences, as --help shows them
    topic       "data", "model", "training" or "inference": where --help and config.flags list it
    choices     the values allowed, or None
    least       the smallest value allowed, of each entry of a tuple, or None
    most        the largest, or None
    may_change  whether two starts of one run may differ in it: it changes how often something is done, how it is
                measured or on what machines, but not what is trained

`fields()` returns them as records. Nothing here imports TensorFlow.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deeplab_tf.errors import UserError
from deeplab_tf.models.architectures import BACKBONES, OUTPUT_STRIDES, heads_of, layer_names
from deeplab_tf.run_folder import INFERENCE_FLAGS


def _setting(
    kind: str,
    default: Any,
    help_text: str,
    *,
    topic: str,
    choices: Sequence | None = None,
    least: float | None = None,
    most: float | None = None,
    may_change: bool = False,
) -> Any:
    metadata = {
        "kind": kind,
        "help": help_text,
        "topic": topic,
        "choices": choices,
        "least": least,
        "most": most,
        "may_change": may_change,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _data(kind: str, default: Any, help_text: str, **limits: Any) -> Any:
    return _setting(kind, default, help_text, topic="data", **limits)


def _model(kind: str, default: Any, help_text: str, **limits: Any) -> Any:
    return _setting(kind, default, help_text, topic="model", **limits)


def _training(kind: str, default: Any, help_text: str, **limits: Any) -> Any:
    return _setting(kind, default, help_text, topic="training", **limits)


def _inference(kind: str, default: Any, help_text: str, **limits: Any) -> Any:
    return _setting(kind, default, help_text, topic="inference", may_change=True, **limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a training depends on besides its data set. The fields are the flags of train.py of the same names.

    The defaults are those of the paper's ResNet-101 where its text or the release has them. Tuples may be given as any
    sequence of numbers.

    Raises:
        UserError: a value is of another type, out of range or not one of its choices; the message names the flag.

    Example:
        >>> recipe = Recipe(backbone="vgg16", head="large_fov", scales=(1.0,), learning_rate=1e-3, max_steps=2000)
    """

    train_split: str = _data(
        "string",
        "train",
        "Split to train on, or a slice, train[60:], or several joined by '+'; of other data sets too: set:split.",
    )
    train_masks: str | None = _data(
        "string",
        None,
        "Folder of masks, PNGs named as the images, that replace those of the training split: pseudo labels.",
    )
    train_masks_missing: str = _data(
        "enum", "error", "Images without a mask in --train_masks: an error, or left out.", choices=("error", "skip")
    )
    val_split: str = _data("string", "val", "Split to validate and evaluate on.", may_change=True)

    input_scale: float = _data(
        "float",
        1.0,
        "Size at which images are seen, in training and in inference: 0.5 is half the height and width.",
        least=0.05,
        most=4,
    )

    backbone: str = _model(
        "enum",
        "resnet101",
        "The feature extractor.",
        choices=BACKBONES,
    )
    head: str = _model(
        "string",
        "aspp_l",
        "The classifier: aspp_l, aspp_s, large_fov; ResNets also linear, aspp_6_12; VGG-16 also fc_7x7_r4, fc_4x4_r4, "
        "fc_4x4_r8.",
    )
    output_stride: int = _model("integer", 8, "Pixels per score of the network: 8, 16 or 32.", choices=OUTPUT_STRIDES)
    scales: tuple[float, ...] = _model(
        "numbers",
        (0.5, 0.75, 1.0),
        "Multi-scale inputs, fused by maximum; 1.0 is single-scale.",
        least=0.05,
        most=8,
    )
    atrous: str = _model(
        "enum",
        "dilation",
        "How atrous convolution is computed (Sec. 3.1): holes in the filter, or dense convolution of sub-maps.",
        choices=("dilation", "deinterlace"),
    )
    batch_norm: str = _model(
        "enum",
        "auto",
        "Batch normalisation: frozen (for pretrained weights), trainable, or synchronised over the replicas; "
        "auto: frozen, but trainable in resnet_tiny.",
        choices=("auto", "frozen", "trainable", "sync"),
    )
    average_pool: bool | None = _model(
        "bool",
        None,
        "VGG-16: a 3x3 average pool after pool5, as in the LargeFOV release of 2015; default: as the initial weights "
        "were trained, else none.",
    )
    dropout: float = _model("float", 0.5, "VGG-16: dropout after fc6 and fc7.", least=0, most=0.99)
    initial_weights: str | None = _model(
        "string",
        None,
        "Weights to start from: imagenet, the name of a public file (tools/convert_weights.py --list), a file, or the "
        "folder of a run or of checkpoints.",
    )
    weights_dir: str | None = _model(
        "string",
        None,
        "Folder of public weight files; default: the environment's DEEPLAB_TF_WEIGHTS, else ~/.cache/deeplab_tf.",
        may_change=True,
    )
    weights_key: str | None = _model(
        "string", None, "PyTorch files that hold several sets of weights: which to read, such as model or ema_model."
    )
    freeze: str = _model("string", "none", "Layers that are not trained: none, backbone, or a pattern of their names.")

    crop_size: int = _training(
        "integer", 321, "Height and width of a training crop, pixels; 8k+1 wastes nothing.", least=9, most=8193
    )
    batch_size: int = _training(
        "integer", 10, "Images per update, over all devices and micro-batches.", least=1, most=65_536
    )
    accumulation_steps: int = _training(
        "integer", 1, "Micro-batches that one update is made of, to save memory.", least=1, most=65_536, may_change=True
    )
    max_steps: int = _training("integer", 20_000, "Updates of the whole training.", least=1, most=2**31 - 1)
    learning_rate: float = _training(
        "float", 2.5e-4, "Learning rate at the start: 2.5e-4 for ResNet-101, 1e-3 for VGG-16.", least=0
    )
    schedule: str = _training(
        "enum", "poly", "poly: lr (1-step/max)^0.9; step: times 0.1 every step_size.", choices=("poly", "step")
    )
    step_size: int = _training(
        "integer", 2_000, "Updates between the drops of the step schedule.", least=1, most=2**31 - 1
    )
    momentum: float = _training("float", 0.9, "Momentum of SGD.", least=0, most=1)
    weight_decay: float = _training("float", 5e-4, "Weight decay of the kernels, added to the gradient.", least=0)
    clip_norm: float | None = _training(
        "float",
        None,
        "Beyond the paper: scale the gradient down where its norm over all parameters is above this.",
        least=1e-6,
    )
    classifier_multiplier: float = _training(
        "float", 10.0, "Learning rate of the classifier's kernel; its bias gets double.", least=0
    )
    fast_layers: str | None = _training(
        "string", None, "Fresh layers that learn as fast as the classifier: a pattern of their names, such as fc[67]."
    )
    random_scale: tuple[float, ...] = _training(
        "numbers",
        (0.5, 1.5),
        "Random scaling: two numbers are a range; one, or three and more, a choice.",
        least=0.05,
        most=20,
    )
    mirror: bool = _training("bool", True, "Mirror training images at random.")
    rotate_90: bool = _training(
        "bool", False, "Turn training crops by 0, 90, 180 or 270 degrees at random, for pictures taken from above."
    )
    vertical_flip: bool = _training("bool", False, "Flip training crops upside down at random.")
    color_jitter: float = _training(
        "float",
        0.0,
        "Change brightness, contrast and saturation of training crops at random, by up to this fraction.",
        least=0,
        most=1,
    )
    seed: int = _training(
        "integer",
        0,
        "Seed of everything random: initial weights, order, augmentation, dropout.",
        least=0,
        most=2**31 - 1,
    )
    strategy: str = _training(
        "enum",
        "auto",
        "Devices to train on: auto takes all local GPUs, and all hosts where TF_CONFIG names a cluster.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
        may_change=True,
    )
    tpu: str = _training("string", "local", "Name or address of the TPU of --strategy=tpu.", may_change=True)
    precision: str = _training(
        "enum",
        "float32",
        "Arithmetic of the network; weights, score maps and loss stay in float32; mixed_float16 scales the loss.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: bool = _training("bool", False, "Compile the training step with XLA.", may_change=True)
    loss_normalization: str = _training(
        "enum",
        "batch",
        "The loss is a mean over the labelled positions of the whole batch, or (release, ResNet-101) of each image.",
        choices=("batch", "image"),
    )
    interpolated_losses: bool = _training(
        "bool",
        False,
        "Multi-scale: take the loss of scales such as 0.75 on the interpolated score map, as the release does.",
    )
    class_weights: str | None = _training(
        "string", None, "Beyond the paper: balanced, or a file with one weight a line."
    )
    ema_decay: float = _training(
        "float",
        0.0,
        "Beyond the paper: validate and keep a moving average of the weights, such as 0.999; 0: none.",
        least=0,
        most=0.999_999,
    )
    hard_fraction: float = _training(
        "float",
        1.0,
        "Beyond the paper: train on this fraction of the pixels, the hardest.",
        least=1e-6,
        most=1,
    )
    steps_per_loop: int = _training(
        "integer",
        10,
        "Updates that TensorFlow makes before progress is shown and a stop is obeyed.",
        least=1,
        most=2**31 - 1,
        may_change=True,
    )
    eval_every: int = _training(
        "integer", 1_000, "Updates between validations; 0: only at the end.", least=0, most=2**31 - 1, may_change=True
    )
    patience: int | None = _training(
        "integer",
        None,
        "End after this many validations in a row without a higher mean IoU.",
        least=1,
        may_change=True,
    )
    eval_limit: int | None = _training(
        "integer", None, "Validate on this many images during training; default: all.", least=1, may_change=True
    )
    checkpoint_every: int = _training(
        "integer", 500, "Updates between checkpoints.", least=1, most=2**31 - 1, may_change=True
    )
    max_checkpoints: int = _training("integer", 3, "Checkpoints to keep.", least=1, may_change=True)
    profile_steps: tuple[int, ...] | None = _training(
        "integers",
        None,
        "First and last update to profile for TensorBoard, such as 20,30.",
        least=1,
        may_change=True,
    )
    overlays: int = _training(
        "integer",
        4,
        "Validation images to draw: in TensorBoard at every validation, in overlays/ by an evaluation.",
        least=0,
        may_change=True,
    )
    license: str = _training(
        "string", "", "Licence of the trained weights, for the model card, such as Apache-2.0.", may_change=True
    )

    eval_scales: tuple[float, ...] | None = _inference(
        "numbers",
        None,
        "Scales of the network's input in validation and inference; default: as in training.",
        least=0.05,
        most=8,
    )
    eval_mirror: bool = _inference("bool", False, "Average the scores of the image and of its mirror image.")
    eval_vertical_flip: bool = _inference(
        "bool", False, "Average the scores of the image and of itself upside down; beside --eval_mirror, of all four."
    )
    tile_size: int | None = _inference(
        "integer",
        None,
        "Cut larger images into tiles of this height and width, pixels; saves memory.",
        least=9,
        most=65_537,
    )
    pad_to: int | None = _inference(
        "integer",
        None,
        "Pad smaller images to this height and width, pixels, with the mean colour; the release pads to 513.",
        least=1,
        most=65_537,
    )
    tile_overlap: int = _inference(
        "integer", 128, "Pixels by which neighbouring tiles overlap, blended there.", least=1, most=65_537
    )
    eval_align_corners: bool = _inference(
        "bool",
        True,
        "Interpolate with corners aligned, as Caffe and the paper's release; false: as deeplab-pytorch does, for its "
        "weights.",
    )

    def __post_init__(self):
        for field in fields():
            object.__setattr__(self, field.name, field.checked(getattr(self, field.name)))
        for name in ("scales", "eval_scales"):
            scales = getattr(self, name) or ()
            _require(len(set(scales)) == len(scales), name, scales, "each number once")
        low, high = (*self.random_scale, *self.random_scale)[:2]
        _require(len(self.random_scale) != 2 or low <= high, "random_scale", self.random_scale, "a range LOW,HIGH")
        _require(
            self.batch_size % self.accumulation_steps == 0,
            "batch_size",
            self.batch_size,
            f"a multiple of --accumulation_steps={self.accumulation_steps}",
        )
        if self.profile_steps is not None:
            in_order = len(self.profile_steps) == 2 and self.profile_steps[0] <= self.profile_steps[1]
            _require(in_order, "profile_steps", self.profile_steps, "the first and the last update, such as 20,30")
        check_tiles(self.tile_size, self.tile_overlap)
        for name in ("tile_size", "pad_to"):
            on_grid = self.eval_align_corners or getattr(self, name) is None
            _require(on_grid, name, getattr(self, name), "none with --eval_align_corners=false")
        _require(not self.patience or self.eval_every > 0, "patience", self.patience, "none with --eval_every=0")
        heads = heads_of(self.backbone)
        _require(self.head in heads, "head", self.head, f"with --backbone={self.backbone} one of {', '.join(heads)}")
        if self.freeze not in ("none", "backbone"):
            self._check_pattern("freeze", "none, backbone or ")
        if self.fast_layers:
            self._check_pattern("fast_layers")

    def _check_pattern(self, name: str, others: str = "") -> None:
        """A pattern of names of layers matches one at least."""
        value, names = getattr(self, name), layer_names(self.backbone, self.head)
        try:
            matches = any(map(re.compile(value).fullmatch, names))
        except re.error as error:
            _require(False, name, value, f"{others}a regular expression ({error})")
        listed = f"{', '.join(names[:3])} ... {names[-1]}"
        _require(matches, name, value, f"{others}a regular expression of whole names of layers: {listed}")

    def inference_options(self) -> dict[str, Any]:
        """The options of `Segmenter` in validation and the last evaluation."""
        return {option: getattr(self, flag) for option, flag in INFERENCE_FLAGS.items()}

    @classmethod
    def from_flags(cls, flags: Mapping[str, str]) -> "Recipe":
        """The recipe of a `config.flags`, whose values are text, by the names of the flags. Other flags are ignored.

        Raises:
            UserError: a value cannot be read.
        """
        return cls(**{field.name: field.parsed(flags[field.name]) for field in fields() if field.name in flags})

    def to_flags(self) -> dict[str, dict[str, str]]:
        """The values as the flags take them, {topic: {name: text}}; fields that are None are left out."""
        by_topic: dict[str, dict[str, str]] = {}
        for field in fields():
            value = getattr(self, field.name)
            if value is not None:
                by_topic.setdefault(field.topic, {})[field.name] = _as_text(value)
        return by_topic


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting of a `Recipe`; see the top of this module."""

    name: str
    default: Any
    kind: str
    help: str
    topic: str
    choices: tuple | None
    least: float | None
    most: float | None
    may_change: bool

    def checked(self, value: Any) -> Any:
        """The value as the recipe holds it.

        Raises:
            UserError: it is of another kind or out of bounds.
        """
        if value is None or value == "" and self.default is None:
            _require(self.default is None, self.name, value, "a value")
            return None
        if self.kind in ("numbers", "integers"):
            is_sequence = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
            _require(is_sequence, self.name, value, "a sequence of numbers")
            number = _integer if self.kind == "integers" else _number
            value = tuple(number(self.name, entry) for entry in value)
            _require(len(value) > 0, self.name, value, "at least one number")
        elif self.kind == "integer":
            value = _integer(self.name, value)
        elif self.kind == "float":
            value = _number(self.name, value)
        else:
            expected = bool if self.kind == "bool" else str
            _require(isinstance(value, expected), self.name, value, "true or false" if expected is bool else "text")
        self._check_limits(value)
        return value

    def parsed(self, text: str) -> Any:
        """The value that a flag's text stands for.

        Raises:
            UserError: it stands for none.
        """
        if self.kind == "bool":
            _require(text.lower() in ("true", "false", "1", "0"), self.name, text, "true or false")
            return text.lower() in ("true", "1")
        if self.kind in ("string", "enum"):
            return text
        convert = int if self.kind.startswith("integer") else float
        try:
            if self.kind.endswith("s"):
                return tuple(convert(entry) for entry in text.split(","))
            return convert(text)
        except ValueError:
            expected = "whole numbers" if convert is int else "numbers"
            raise UserError(f"--{self.name}: found {text!r}, expected {expected}") from None

    def _check_limits(self, value: Any) -> None:
        if self.choices is not None:
            _require(value in self.choices, self.name, value, f"one of {', '.join(map(str, self.choices))}")
        for entry in value if isinstance(value, tuple) else (value,):
            if self.least is not None:
                _require(entry >= self.least, self.name, value, f"at least {self.least:g}")
            if self.most is not None:
                _require(entry <= self.most, self.name, value, f"at most {self.most:g}")


def check_tiles(tile_size: int | None, tile_overlap: int) -> None:
    """Refuses tiles, if there are any, that would overlap by half or more; all in pixels.

    Raises:
        UserError: they would.
    """
    fits = tile_size is None or 2 * tile_overlap < tile_size
    _require(fits, "tile_size", tile_size, f"more than twice the overlap of the tiles, --tile_overlap={tile_overlap}")


def fields() -> tuple[Field, ...]:
    """The settings of a recipe, in the order in which --help and config.flags list them."""
    return tuple(
        Field(name=field.name, default=field.default, **field.metadata) for field in dataclasses.fields(Recipe)
    )


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    _require(is_number and math.isfinite(value), name, value, "a finite number")
    return float(value)


def _integer(name: str, value: Any) -> int:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    _require(is_integer, name, value, "a whole number")
    return int(value)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_as_text(entry) for entry in value)
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        found = _as_text(value) if isinstance(value, (bool, int, float, str, tuple)) else repr(value)
        raise UserError(f"--{name}={found}: expected {expected}")
