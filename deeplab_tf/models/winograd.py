"""3x3 convolutions by Winograd's algorithm, for training on a CPU: up to 3.2 times fewer multiplications.

A tile of 3x3 outputs y reads a tile of 5x5 inputs x, and with the kernel w

    y = A^T [(G w G^T) * (B^T x B)] A        where * multiplies element by element, and adds over the input channels

(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308). The sums over the channels are
25 matrix products, one for each place of the 5x5: 25 multiplications for the 81 of the convolution. The maps before and
after are linear, and cost a pass over the memory; they and their adjoints are in `winograd_kernels`.

At atrous rate r, the tiles are those of the r^2 sub-maps of every r-th row and column (DeepLab, Sec. 3.1). The results
differ from the convolution's by rounding, by some 5e-6 of the largest value (benchmarks/winograd.py).
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.models import winograd_kernels as kernels
from deeplab_tf.parallel import available_cores, run, split

# Winograd's algorithm costs more than it saves below these: the ratio of the multiplications, and those that it saves
# (benchmarks/winograd.py).
_LEAST_RATIO = 2.0
_LEAST_SAVED = 200e6


def pays(inputs, filters: int, rate: int) -> bool:
    """Whether a map is large enough for `convolution` to be faster than the backend's.

    Args:
        inputs: float32 [B, H, W, C].
        filters: of the convolution.
        rate: atrous rate.

    Raises:
        UserError: the map is none that `convolution` takes.
    """
    check_devices()
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if dtype != "float32":
        _refuse(f"maps of {dtype}, expected float32")
    if None in inputs.shape[1:]:
        _refuse(f"a map of {tuple(inputs.shape)}, expected a height and a width that the graph knows, as of crops")
    ratio = saving(inputs.shape, rate)
    multiplications = 9.0 * (inputs.shape[0] or 1) * np.prod(inputs.shape[1:]) * filters
    return ratio >= _LEAST_RATIO and multiplications * (1 - 1 / ratio) >= _LEAST_SAVED


def check_devices() -> None:
    """Refuses to go on where the convolutions could not be computed.

    Raises:
        UserError: Keras' backend is another one than TensorFlow, or there is a GPU.
    """
    if keras.backend.backend() != "tensorflow":
        _refuse(f"Keras' backend {keras.backend.backend()}, expected tensorflow")
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        _refuse("a GPU, expected CPUs alone")


def _refuse(found: str) -> None:
    raise UserError(f"atrous='winograd': found {found}; use 'dilation' here")


def convolution(inputs, kernel, rate: int):
    """The "same" convolution of a map with a 3x3 kernel.

    Args:
        inputs: float32 [B, H, W, C], on a CPU.
        kernel: float32 [3, 3, C, filters].
        rate: atrous rate.

    Returns:
        float32 [B, H, W, filters].
    """
    import tensorflow as tf

    filters = kernel.shape[3]

    @tf.custom_gradient
    def convolve(x, u):
        x_tiles = _input_tiles(x, rate)
        y = _output_tiles(x_tiles @ u, tf.shape(x), (*x.shape[:3], filters), rate)

        def gradient(dy):
            products = _output_tiles_adjoint(dy, rate)
            # Not kept from the forward pass, to save memory; and not made again before they are needed.
            with tf.control_dependencies([dy]):
                x_tiles = _input_tiles(x, rate)
            tiles = tf.matmul(products, u, transpose_b=True)
            dx = _input_tiles_adjoint(tiles, tf.shape(x), x.shape, rate)
            return dx, tf.matmul(x_tiles, products, transpose_a=True)

        return y, gradient

    return convolve(tf.convert_to_tensor(inputs), transformed_kernel(tf.convert_to_tensor(kernel)))


def transformed_kernel(kernel):
    """G w G^T of the kernel w, float32 [3, 3, C, filters], of a convolution: float32 [25, C, filters]."""
    import tensorflow as tf

    channels, filters = kernel.shape[2:]

    def transform(w: np.ndarray) -> np.ndarray:
        u = _array((kernels.TILE_AREA, channels * filters))
        _in_pieces(kernels.transformed_kernel, w.reshape(9, -1), u, channels * filters)
        return u.reshape(kernels.TILE_AREA, channels, filters)

    def adjoint(u: np.ndarray) -> np.ndarray:
        w = _array((9, channels * filters))
        _in_pieces(kernels.transformed_kernel_adjoint, u.reshape(kernels.TILE_AREA, -1), w, channels * filters)
        return w.reshape(3, 3, channels, filters)

    @tf.custom_gradient
    def linear(w):
        u = _numpy_function(transform, [w], (kernels.TILE_AREA, channels, filters))
        return u, lambda du: _numpy_function(adjoint, [du], kernel.shape)

    return linear(kernel)


def _input_tiles(x, rate: int):
    """B^T x B of every tile of a map [B, H, W, C]: [25, tiles, C]."""

    def compute(x: np.ndarray) -> np.ndarray:
        tiles = _array((kernels.TILE_AREA, _count(x.shape, rate), x.shape[3]))
        _in_pieces(kernels.input_tiles, x, tiles, tiles.shape[1], rate)
        return tiles

    return _numpy_function(compute, [x], (kernels.TILE_AREA, None, x.shape[3]))


def _input_tiles_adjoint(tiles, shape, static_shape, rate: int):
    def compute(tiles: np.ndarray, shape: np.ndarray) -> np.ndarray:
        x = _array(shape)
        _in_pieces(kernels.input_tiles_adjoint, tiles, x, shape[0] * rate, rate)
        return x

    return _numpy_function(compute, [tiles, shape], static_shape)


def _output_tiles(tiles, shape, static_shape, rate: int):
    """A^T t A of every tile t, put together: [B, H, W, filters]."""

    def compute(tiles: np.ndarray, shape: np.ndarray) -> np.ndarray:
        y = _array((*shape[:3], static_shape[3]))
        _in_pieces(kernels.output_tiles, tiles, y, tiles.shape[1], rate)
        return y

    return _numpy_function(compute, [tiles, shape], static_shape)


def _output_tiles_adjoint(y, rate: int):
    def compute(y: np.ndarray) -> np.ndarray:
        tiles = _array((kernels.TILE_AREA, _count(y.shape, rate), y.shape[3]))
        _in_pieces(kernels.output_tiles_adjoint, y, tiles, tiles.shape[1], rate)
        return tiles

    return _numpy_function(compute, [y], (kernels.TILE_AREA, None, y.shape[3]))


def _numpy_function(function: Callable[..., np.ndarray], inputs: list, shape: Sequence[int | None]):
    """`tf.numpy_function` with a static shape."""
    import tensorflow as tf

    output = tf.numpy_function(function, inputs, tf.float32, stateful=False)
    output.set_shape(shape)
    return output


def _in_pieces(work: Callable, source: np.ndarray, target: np.ndarray, count: int, *arguments) -> None:
    """Runs a kernel on all cores, each of which does some of `count` things."""
    cores = available_cores()
    run(lambda start, stop: work(source, *arguments, start, stop, target), split(count, cores, smallest=1), cores)


def _count(shape: Sequence[int], rate: int) -> int:
    """The number of tiles of a map [B, H, W, C]."""
    return shape[0] * kernels.tiles_along(shape[1], rate) * kernels.tiles_along(shape[2], rate)


def _array(shape: Sequence[int]) -> np.ndarray:
    """An uninitialised array that starts at a cache line: TensorFlow does not copy those, and frees them after use."""
    size, line = int(np.prod(shape)), 64 // 4  # floats
    memory = np.empty(size + line, np.float32)
    start = -memory.ctypes.data // 4 % line
    return memory[start : start + size].reshape(shape)


def saving(shape: Sequence[int], rate: int) -> float:
    """Multiplications of a convolution of a map [B, H, W, C] over those of `convolution`: 81/25 for whole tiles."""
    tiles = kernels.tiles_along(shape[1], rate) * kernels.tiles_along(shape[2], rate)
    return 9 * shape[1] * shape[2] / (kernels.TILE_AREA * tiles)
