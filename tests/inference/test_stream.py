"""Many images at the same time: order, batches, errors, and what is read when."""

import threading
import time

import numpy as np
import pytest

from deeplab_tf import Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.inference import stream


@pytest.fixture(scope="module")
def images(photograph):
    sizes = [(40, 48), (40, 48), (40, 48), (33, 60), (33, 60), (40, 48)]
    return [(f"image {i}", photograph(*size, i)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("crf", [None, DenseCRF(iterations=2)])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("live", [False, True])
def test_results_are_those_of_one_image_at_a_time_in_order(segmenter, images, crf, batch_size, live):
    segmenter = Segmenter(segmenter.model, crf)

    def finish(key, image, results):
        return key, image, {stage: result.labels for stage, result in results.items()}

    size = lambda height, width: batch_size  # noqa: E731
    found = list(stream.segment_stream(segmenter, iter(images), finish, batch_size=size, live=live))
    assert [key for key, _, _ in found] == [key for key, _ in images]
    for (_, image), (_, same_image, results) in zip(images, found, strict=True):
        assert same_image is image
        unrefined = segmenter.without_crf(image)
        np.testing.assert_array_equal(results["network"], unrefined.labels)
        assert (stream.CRF in results) == (crf is not None)
        if crf:
            np.testing.assert_array_equal(results[stream.CRF], segmenter.refined(image, unrefined).labels)


def test_batches_hold_consecutive_images_of_one_size(images):
    groups = stream.batches(images, lambda height, width: 2 if height == 40 else 5)
    assert [[int(key[-1]) for key, _ in group] for group in groups] == [[0, 1], [2], [3, 4], [5]]


def test_the_crf_of_an_image_runs_while_the_network_has_the_next(segmenter, images):
    """The network waits in its third call until the first image is finished: with one thread this would never end."""
    first_finished = threading.Event()
    calls = []

    class Waiting(Segmenter):
        def batch_without_crf(self, images):
            calls.append(len(images))
            assert len(calls) < 3 or first_finished.wait(60)
            return super().batch_without_crf(images)

    waiting = Waiting(segmenter.model, DenseCRF(iterations=1))
    one = lambda height, width: 1  # noqa: E731
    results = stream.segment_stream(waiting, iter(images), lambda *_: first_finished.set(), batch_size=one)
    assert len(list(results)) == len(images) and calls == [1] * len(images)


@pytest.mark.parametrize("where", ["reading", "finishing"])
def test_an_error_in_another_thread_comes_through(segmenter, images, where):
    def reading():
        yield images[0]
        raise OSError("reading failed")

    def finish(key, image, results):
        raise OSError("finishing failed")

    source = reading() if where == "reading" else iter(images)
    with pytest.raises(OSError, match=f"{where} failed"):
        list(stream.segment_stream(segmenter, source, finish if where == "finishing" else lambda *_: 0))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("read-ahead", "finish"))]


def test_reading_ahead_stops_with_its_reader():
    read = []

    def items():
        for i in range(1000):
            read.append(i)
            yield i

    ahead = stream.read_ahead(items(), count=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 10
    while len(read) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    ahead.close()
    assert 5 <= len(read) <= 6  # one taken, three waiting, one or two in the reader's hands
