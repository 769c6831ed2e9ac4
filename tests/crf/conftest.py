"""Images, unaries and exact sums that the tests of the dense CRF share."""

import numpy as np
import PIL.Image
import pytest

from benchmarks.crf_inputs import degraded


@pytest.fixture(scope="session")
def photographs(camvid_dir):
    """Three CamVid scenes: pairs of uint8 [360, 480, 3] and probabilities float32 [360, 480, 11]."""
    pairs = []
    for path in sorted((camvid_dir / "val").glob("*.png"))[::40]:
        labels = np.asarray(PIL.Image.open(camvid_dir / "valannot" / path.name))
        pairs.append((np.asarray(PIL.Image.open(path).convert("RGB")), degraded(labels, 11)))
    return pairs


def pytest_runtest_setup(item):
    """Tests marked `yardstick` are skipped where pydensecrf is not installed."""
    if item.get_closest_marker("yardstick"):
        reason = "pydensecrf is not installed: pip install pydensecrf2 (it needs a C++ compiler)"
        pytest.importorskip("pydensecrf.densecrf", reason=reason)


@pytest.fixture(scope="session")
def yardstick():
    """The package pydensecrf, for tests marked `yardstick`."""
    import pydensecrf.densecrf
    import pydensecrf.utils

    return pydensecrf


@pytest.fixture
def small():
    """A made-up image with an edge, uint8 [20, 24, 3], and probabilities float32 [20, 24, 3]."""
    generator = np.random.default_rng(3)
    image = np.full((20, 24, 3), (60, 90, 120), np.float64)
    image[:, 11:] = (150, 80, 40)
    image = np.clip(image + generator.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    scores = generator.normal(0, 1, (20, 24, 3))
    scores[:, :9, 0] += 2
    scores[:, 9:, 1] += 2
    probabilities = np.exp(scores)
    return image, (probabilities / probabilities.sum(axis=-1, keepdims=True)).astype(np.float32)


def exact_kernel(features: np.ndarray) -> np.ndarray:
    """The normalised Gaussian kernel between all pairs of features [d, N], float64 [N, N]."""
    features = features.T.astype(np.float64)
    squares = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squares / 2)
    root = np.sqrt(kernel.sum(axis=1))
    return kernel / root[:, None] / root[None]


@pytest.fixture
def exact():
    """`exact_kernel`, as a fixture."""
    return exact_kernel
