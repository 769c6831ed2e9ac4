"""The mean field of the dense CRF in TensorFlow operations: for graphs, GPUs and SavedModels.

The same lattice as `lattice.py`, for a batch of images at once: the number of the image is one more digit of a vertex'
key, so that images share no vertices. Everything can be traced in a `tf.function`, with sizes that are not known yet.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab_tf.crf.check import check_axes
from deeplab_tf.crf.filtering import FLOOR
from deeplab_tf.crf.lattice import check_reach, elevation
from deeplab_tf.errors import UserError


class Lattice(NamedTuple):
    """The vertices around the pixels of a batch, of every corner or direction of a cell; see `lattice.Lattice`."""

    vertices: list[tf.Tensor]  # int32 [N]
    splat_weights: list[tf.Tensor]  # float32 [N, 1], times what normalises the kernel before filtering
    slice_weights: list[tf.Tensor]  # float32 [N, 1], times what normalises it after filtering
    neighbors: list[tuple[tf.Tensor, tf.Tensor]]  # the previous and the following vertex, int32 [M+1]; M, a zero: none
    gain: float


def _key_steps(extent: list[tf.Tensor], images: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The step of a key along each direction, int64, and the number of keys of an image: `lattice.key_steps`."""
    dimensions = len(extent)
    scale = elevation(dimensions)
    strides, stride = [], tf.constant(1, tf.int64)
    needed = tf.cast(images, tf.float64)
    for axis in range(dimensions):
        reach = (axis + 1) * (axis + 2) / (dimensions + 1) * float(scale[axis]) * extent[axis]
        size = tf.math.ceil(tf.cast(reach, tf.float64)) + 2 * (3 * (axis + 1) + 1)
        strides.append(stride)
        stride *= tf.cast(size, tf.int64)
        needed *= size
    with tf.control_dependencies(
        [
            tf.debugging.assert_less(
                needed,
                tf.constant(2.0**62, tf.float64),
                "dense CRF: the images span too many standard deviations of a kernel for the lattice: use larger ones",
            )
        ]
    ):
        stride = tf.identity(stride)
    steps = []
    for direction in range(dimensions + 1):
        step = tf.add_n(strides[direction:]) if direction < dimensions else tf.constant(0, tf.int64)
        steps.append(step - direction * strides[direction - 1] if direction else step)
    return steps, stride


def build_lattice(
    features: list[tf.Tensor], image_of: tf.Tensor, images: tf.Tensor, normalization: str = "symmetric"
) -> Lattice:
    """Builds the lattice around the pixels of a batch.

    Args:
        features: d of float32 [N], none negative.
        image_of: int64 [N], the image that every pixel belongs to.
        images: the number of images.
        normalization: of the kernel, see `DenseCRF`.
    """
    d = len(features)
    scale = elevation(d)
    steps, keys_per_image = _key_steps([tf.reduce_max(feature) for feature in features], images)

    # Elevate onto the plane of d+1 coordinates that sum to zero; everything divided by d+1.
    elevated, total = [None] * (d + 1), tf.zeros_like(features[0])
    for j in range(d, 0, -1):
        scaled = features[j - 1] * np.float32(scale[j - 1] / (d + 1))
        elevated[j] = total - j * scaled
        total += scaled
    elevated[0] = total
    base = [tf.round(coordinate) for coordinate in elevated]
    rest = [coordinate - rounded for coordinate, rounded in zip(elevated, base, strict=True)]
    rank = [tf.cast(tf.add_n(base), tf.int32)] * (d + 1)  # how far rounding has left the plane
    for j in range(d):
        for k in range(j + 1, d + 1):
            lower = tf.cast(rest[j] < rest[k], tf.int32)
            rank[j] += lower
            rank[k] += 1 - lower
    back = [tf.cast(r < 0, tf.int32) - tf.cast(r > d, tf.int32) for r in rank]
    rank = [r + (d + 1) * b for r, b in zip(rank, back, strict=True)]
    base = [rounded + tf.cast(b, tf.float32) for rounded, b in zip(base, back, strict=True)]

    def of_rank(r, values):
        """For every pixel, the one of d+1 values whose coordinate has rank r."""
        return tf.add_n([tf.where(rank[j] == r, values[j], tf.zeros([], values[j].dtype)) for j in range(d + 1)])

    rest = [coordinate - rounded for coordinate, rounded in zip(elevated, base, strict=True)]
    by_rank = [of_rank(r, rest) for r in range(d + 1)]
    key = image_of * keys_per_image + tf.add_n([tf.cast(b, tf.int64) * s for b, s in zip(base, steps, strict=True)])
    keys, weights = [key], [1 + by_rank[d] - by_rank[0]]
    for r in range(1, d + 1):
        keys.append(keys[-1] - of_rank(d + 1 - r, steps))
        weights.append(by_rank[d - r] - by_rank[d + 1 - r])

    found, places = tf.unique(tf.reshape(tf.stack(keys), [-1]))
    vertices = tf.unstack(tf.reshape(places, [d + 1, -1]))
    order = tf.argsort(found)
    ordered = tf.gather(found, order)
    none = tf.size(found)

    def look_up(wanted):
        place = tf.minimum(tf.searchsorted(ordered, wanted), none - 1)
        neighbor = tf.where(tf.gather(ordered, place) == wanted, tf.gather(order, place), none)
        return tf.concat([neighbor, [none]], axis=0)

    neighbors = [(look_up(found - step), look_up(found + step)) for step in steps]
    weights = [weight[:, None] for weight in weights]
    lattice = Lattice(vertices, weights, weights, neighbors, 1 / (1 + 2.0**-d))
    response = apply(lattice, tf.ones_like(weights[0])) + 1e-20
    before = response ** {"symmetric": 0.5, "before": 1.0}.get(normalization, 0.0)
    after = response ** {"symmetric": 0.5, "after": 1.0}.get(normalization, 0.0)
    return lattice._replace(
        splat_weights=[weight / before for weight in weights], slice_weights=[weight / after for weight in weights]
    )


def apply(lattice: Lattice, values: tf.Tensor) -> tf.Tensor:
    """Filters values of the pixels, float [N, C], with the normalised Gaussian kernel; differentiable in them."""
    corners, size = range(len(lattice.vertices)), tf.size(lattice.neighbors[0][0])
    before = [tf.cast(weight, values.dtype) for weight in lattice.splat_weights]
    after = [tf.cast(weight, values.dtype) for weight in lattice.slice_weights]

    def splat_blur_slice(values, splat_weights, slice_weights, directions):
        on_lattice = tf.add_n(
            [tf.math.unsorted_segment_sum(splat_weights[r] * values, lattice.vertices[r], size) for r in corners]
        )
        for direction in directions:
            previous, following = lattice.neighbors[direction]
            on_lattice += 0.5 * (tf.gather(on_lattice, previous) + tf.gather(on_lattice, following))
        sliced = tf.add_n([slice_weights[r] * tf.gather(on_lattice, lattice.vertices[r]) for r in corners])
        return lattice.gain * sliced

    @tf.custom_gradient
    def filtered(values):
        # The transpose of splat, blur, slice is the same with the (symmetric) blurs in the opposite order.
        return splat_blur_slice(values, before, after, corners), lambda gradient: splat_blur_slice(
            gradient, after, before, reversed(corners)
        )

    return filtered(values)


def lattices(images: tf.Tensor, parameters) -> tuple[Lattice, Lattice]:
    """The lattices of both kernels of a CRF.

    Args:
        images: numbers [B, H, W, channels].
        parameters: a `DenseCRF`, or what has its attributes.
    """
    count, height, width = tf.unstack(tf.shape(images)[:3])
    pixels = tf.range(count * height * width)
    x = tf.cast(pixels % width, tf.float32)
    y = tf.cast(pixels // width % height, tf.float32)
    image_of = tf.cast(pixels // (width * height), tf.int64)
    channels = images.shape[-1]
    colors = tf.unstack(tf.reshape(tf.cast(images, tf.float32), [-1, channels]), axis=1)
    # The lattice wants features that are not negative.
    colors = [color - tf.minimum(tf.reduce_min(color), 0) for color in colors]

    def positions(std):
        y_std, x_std = np.broadcast_to(np.asarray(std, np.float32), 2)
        return [x / x_std, y / y_std]

    color_stds = np.broadcast_to(np.asarray(parameters.bilateral_color_std, np.float32), channels)
    bilateral = positions(parameters.bilateral_spatial_std)
    bilateral += [color / std for color, std in zip(colors, color_stds, strict=True)]
    normalization = getattr(parameters, "normalization", "symmetric")
    return (
        build_lattice(bilateral, image_of, count, normalization),
        build_lattice(positions(parameters.spatial_std), image_of, count, normalization),
    )


class MeanField:
    """The beliefs about a batch of images, and their update; differentiable in all but the images."""

    def __init__(self, images: tf.Tensor, unaries: tf.Tensor, parameters, compatibility: tf.Tensor | None = None):
        """Starts with the softmax of the unaries as beliefs.

        Args:
            images: numbers [B, H, W, channels].
            unaries: float [B, H, W, C], log P; everything is computed in their dtype.
            parameters: a `DenseCRF`, or what has its attributes.
            compatibility: float [C, C], mu: what it costs that a pixel has the label of the row and another one that of
                the column; by default the parameters', or Potts, 1 off the diagonal.
        """
        if compatibility is None and getattr(parameters, "compatibility", None) is not None:
            compatibility = tf.constant(parameters.compatibility, unaries.dtype)
        self._shape = tf.shape(unaries)
        self._static_shape = unaries.shape
        self._bilateral, self._spatial = lattices(images, parameters)
        self._weights = [
            tf.cast(weight, unaries.dtype) for weight in (parameters.bilateral_weight, parameters.spatial_weight)
        ]
        self._compatibility = compatibility
        self._unaries = self._scores = tf.reshape(unaries, [-1, unaries.shape[-1] or self._shape[-1]])

    def update(self) -> None:
        """One iteration."""
        beliefs = tf.nn.softmax(self._scores)
        messages = self._weights[0] * apply(self._bilateral, beliefs) + self._weights[1] * apply(self._spatial, beliefs)
        if self._compatibility is None:
            # Potts: the penalty from the other labels equals minus the own message, up to a constant per pixel.
            self._scores = self._unaries + messages
        else:
            self._scores = self._unaries - tf.linalg.matmul(messages, self._compatibility, transpose_b=True)

    def _shaped(self, flat: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.reshape(flat, self._shape), self._static_shape)

    def marginals(self) -> tf.Tensor:
        """The current beliefs, float32 [B, H, W, C]."""
        return self._shaped(tf.nn.softmax(self._scores))

    def labels(self) -> tf.Tensor:
        """The most probable classes, int32 [B, H, W]."""
        return tf.argmax(self._shaped(self._scores), axis=-1, output_type=tf.int32)

    def scores(self) -> tf.Tensor:
        """The argument of the last update's softmax, log P + messages: float32 [B, H, W, C]."""
        return self._shaped(self._scores)


def unaries(probabilities: tf.Tensor) -> tf.Tensor:
    """The logarithm of probabilities, which count as at least 1e-5: float32."""
    return tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), FLOOR))


class ImageMeanField(MeanField):
    """The same for one image, with arrays instead of tensors."""

    def __init__(self, parameters, image: np.ndarray, probabilities: np.ndarray):
        """Starts with the probabilities as beliefs.

        Args:
            parameters: a `DenseCRF`.
            image: numbers [H, W, channels].
            probabilities: float32 [H, W, C].

        Raises:
            UserError: for a volume, or features that no lattice can hold.
        """
        if image.ndim != 3:
            raise UserError("dense CRF: backend 'tensorflow' takes images only, no volumes; use 'numba'")
        for kernel in parameters.kernels(image):
            check_reach(kernel.features)
        super().__init__(tf.convert_to_tensor(image[None]), unaries(probabilities[None]), parameters)

    def marginals(self) -> np.ndarray:
        """The current beliefs, float32 [H, W, C]."""
        return super().marginals().numpy()[0]

    def labels(self) -> np.ndarray:
        """The most probable classes, int32 [H, W]."""
        return super().labels().numpy()[0]

    def scores(self) -> np.ndarray:
        """The argument of the last update's softmax, log P + messages: float32 [H, W, C]."""
        return super().scores().numpy()[0]


def is_tensor(value) -> bool:
    """Whether `value` is TensorFlow's."""
    return tf.is_tensor(value)


def infer(parameters, images: tf.Tensor, probabilities: tf.Tensor, return_labels: bool) -> tf.Tensor:
    """`DenseCRF.__call__` for tensors: one image, or a batch of them, as the rank of `probabilities` says."""
    images = tf.convert_to_tensor(images)
    rank = probabilities.shape.rank
    if rank not in (3, 4) or not probabilities.dtype.is_floating:
        raise UserError(
            f"dense CRF: backend 'tensorflow' takes one image or a batch, floats [H, W, C] or [B, H, W, C], found "
            f"{probabilities.dtype.name} {probabilities.shape}; 'numba' takes volumes"
        )
    single = rank == 3
    if single:
        images, probabilities = images[None], probabilities[None]
    if images.shape.rank == 3:  # grey
        images = images[..., None]
    if images.shape.rank != 4 or not images.shape[-1]:
        raise UserError(
            f"dense CRF: backend 'tensorflow' takes one image or a batch, [H, W] or [H, W, channels], "
            f"with a known number of channels, found {images.shape}"
        )
    classes = probabilities.shape[-1]
    check_axes(parameters, 2, images.shape[-1], len(parameters.compatibility or ()) if classes is None else classes)
    field = MeanField(images, unaries(probabilities), parameters)
    for _ in range(int(parameters.iterations)):
        field.update()
    result = field.labels() if return_labels else field.marginals()
    if return_labels and (probabilities.shape[-1] or 257) <= 256:
        result = tf.cast(result, tf.uint8)
    return result[0] if single else result
