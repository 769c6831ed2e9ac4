"""3x3 convolutions by Winograd's algorithm, for training on a CPU: up to 3.2 times fewer multiplications.

A tile of 3x3 outputs y reads a tile of 5x5 inputs x, and with the kernel w

    y = A^T [(G w G^T) * (B^T x B)] A        where * multiplies element by element, and adds over the input channels

(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308). The sums over the channels are
25 matrix products, one for each place of the 5x5: 25 multiplications for the 81 of the convolution. The maps before and
after are linear, and cost a pass over the memory; they and their adjoints are in `winograd_kernels`.

At atrous rate r, the tiles are those of the r^2 sub-maps of every r-th row and column (DeepLab, Sec. 3.1). The results
differ from the convolution's by rounding, by some 5e-6 of the largest value (benchmarks/winograd.py).
"""

import collections
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.parallel import available_cores, run, split
from deeplab_tf.training import winograd_kernels as kernels

# Memory of `_array`, by the number of floats.
_unused: dict[int, list[np.ndarray]] = collections.defaultdict(list)


def transformed_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """G w G^T of the kernel float32 [3, 3, C, filters] of a convolution: float32 [25, C, filters]."""
    channels, filters = kernel.shape[2:]

    def transform(w: np.ndarray) -> np.ndarray:
        u = _array((kernels.PLACES, channels * filters))
        _in_pieces(kernels.transformed_kernel, w.reshape(9, -1), u, channels * filters)
        return u.reshape(kernels.PLACES, channels, filters)

    def adjoint(u: np.ndarray) -> np.ndarray:
        w = _array((9, channels * filters))
        _in_pieces(kernels.transformed_kernel_adjoint, u.reshape(kernels.PLACES, -1), w, channels * filters)
        return w.reshape(3, 3, channels, filters)

    @tf.custom_gradient
    def linear(w):
        u = _computed(transform, [w], (kernels.PLACES, channels, filters))
        return u, lambda du: _computed(adjoint, [du], kernel.shape)

    return linear(kernel)


def convolution(inputs: tf.Tensor, kernel: tf.Tensor, rate: int) -> tf.Tensor:
    """The "same" convolution of a map with a 3x3 kernel.

    Args:
        inputs: float32 [B, H, W, C], on a CPU.
        kernel: float32 [25, C, filters], a `transformed_kernel`.
        rate: atrous rate.

    Returns:
        float32 [B, H, W, filters].
    """
    filters = kernel.shape[2]

    def input_tiles(x: np.ndarray) -> np.ndarray:
        tiles = _array((kernels.PLACES, _count(x.shape, rate), x.shape[3]))
        _in_pieces(kernels.input_tiles, x, tiles, tiles.shape[1], rate)
        return tiles

    def input_tiles_adjoint(tiles: np.ndarray, shape: np.ndarray) -> np.ndarray:
        x = _array(shape)
        _in_pieces(kernels.input_tiles_adjoint, tiles, x, shape[0] * rate, rate)
        return x

    def output_tiles(tiles: np.ndarray, shape: np.ndarray) -> np.ndarray:
        y = _array((*shape[:3], filters))
        _in_pieces(kernels.output_tiles, tiles, y, tiles.shape[1], rate)
        return y

    def output_tiles_adjoint(y: np.ndarray) -> np.ndarray:
        tiles = _array((kernels.PLACES, _count(y.shape, rate), filters))
        _in_pieces(kernels.output_tiles_adjoint, y, tiles, tiles.shape[1], rate)
        return tiles

    @tf.custom_gradient
    def convolve(x, u):
        x_tiles = _computed(input_tiles, [x], (kernels.PLACES, None, x.shape[3]))
        y = _computed(output_tiles, [x_tiles @ u, tf.shape(x)], (*x.shape[:3], filters))

        def gradient(dy):
            products = _computed(output_tiles_adjoint, [dy], (kernels.PLACES, None, filters))
            # Not kept from the forward pass, to save memory; and not made again before they are needed.
            with tf.control_dependencies([dy]):
                x_tiles = _computed(input_tiles, [x], (kernels.PLACES, None, x.shape[3]))
            tiles = tf.matmul(products, u, transpose_b=True)
            dx = _computed(input_tiles_adjoint, [tiles, tf.shape(x)], x.shape)
            return dx, tf.matmul(x_tiles, products, transpose_a=True)

        return y, gradient

    return convolve(inputs, kernel)


def _computed(function: Callable[..., np.ndarray], inputs: list[tf.Tensor], shape: Sequence[int | None]) -> tf.Tensor:
    """What a function of arrays returns, of this static shape, as an operation of the graph."""
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
    """An array of any content that TensorFlow takes over without a copy, as it does when it starts at a cache line.

    Its memory is used again when TensorFlow is done with it: new memory, which the system has to clear, takes longer to
    come by than a kernel takes to fill it.
    """
    line = 64 // 4  # floats
    size = int(np.prod(shape))
    try:
        memory = _unused[size].pop()
    except IndexError:
        memory = np.empty(size + line, np.float32)
    start = -memory.ctypes.data // 4 % line
    lease = _Lease(memory[start : start + size])
    weakref.finalize(lease, _unused[size].append, memory)
    return np.asarray(lease).reshape(shape)


class _Lease:
    """What the arrays on a piece of memory refer to, and all views of them: it lives as long as the last of these."""

    def __init__(self, memory: np.ndarray):
        self.__array_interface__ = memory.__array_interface__


def saving(shape: Sequence[int], rate: int) -> float:
    """Multiplications of a convolution of a map [B, H, W, C] over those of `convolution`: 81/25 for whole tiles."""
    return 9 * shape[0] * shape[1] * shape[2] / (kernels.PLACES * _count(shape, rate))
