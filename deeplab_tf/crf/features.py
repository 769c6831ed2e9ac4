"""The features that the kernels of a dense CRF compare pixels by: positions, and the values of a guide."""

from collections.abc import Sequence

import numpy as np


def spatial_features(shape: Sequence[int], std: float | Sequence[float]) -> np.ndarray:
    """Positions in units of the kernel's standard deviation.

    Args:
        shape: of the image, (H, W), or of a volume, (D, H, W).
        std: pixels; one number, or one for each axis of the shape.

    Returns:
        float32 [axes, N], from the last axis to the first: x, y, and z.
    """
    stds = np.broadcast_to(np.asarray(std, np.float32), len(shape))
    features = np.empty((len(shape), *shape), np.float32)
    for axis, (size, axis_std) in enumerate(zip(shape, stds, strict=True)):
        positions = np.arange(size, dtype=np.float32) / axis_std
        features[-1 - axis] = positions.reshape(-1, *[1] * (len(shape) - 1 - axis))
    return features.reshape(len(shape), -1)


def bilateral_features(
    guide: np.ndarray, spatial_std: float | Sequence[float], color_std: float | Sequence[float]
) -> np.ndarray:
    """Positions and values of a guide in units of their standard deviations.

    Args:
        guide: numbers [H, W, channels] or [D, H, W, channels].
        spatial_std: pixels; one number, or one for each axis.
        color_std: units of the guide; one number, or one for each channel.

    Returns:
        float32 [axes + channels, N]: x, y (and z), then the channels.
    """
    *shape, channels = guide.shape
    stds = np.broadcast_to(np.asarray(color_std, np.float32), channels)
    colors = guide.reshape(-1, channels).T / stds[:, None]
    return np.concatenate([spatial_features(shape, spatial_std), colors.astype(np.float32, copy=False)])
