"""The cost of updates: a profile of some of them, for TensorBoard, and the most memory used."""

import pathlib
import resource
import sys
from collections.abc import Sequence

import tensorflow as tf


class Profile:
    """A profile of some updates; ended, where the training ends within them, with the training.

    Args:
        steps: the first and the last update of it; None: no profile.
        folder: of TensorBoard's events.
    """

    def __init__(self, steps: Sequence[int] | None, folder: pathlib.Path):
        self._steps = steps or (0, 0)
        self._folder = str(folder)
        self._running = self._met = False

    def before(self, step: int) -> None:
        """Starts or ends the profile before the update after `step`."""
        if not self._steps[0] <= step + 1 <= self._steps[1]:
            self._stop()
        elif not self._running:
            tf.profiler.experimental.start(self._folder)
            self._running = self._met = True

    def close(self) -> None:
        """Ends the profile, or says that no update was in it."""
        self._stop()
        first, last = self._steps
        if last and not self._met:
            print(f"\n--profile_steps={first},{last}: no such update was made, nothing is profiled", file=sys.stderr)

    def _stop(self) -> None:
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False


def peak_memory() -> dict[str, float]:
    """The most memory used so far, GiB, of this process and of each GPU, by names for TensorBoard."""
    peaks = {"memory_gib/host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    for device in tf.config.list_logical_devices("GPU"):
        gpu = device.name.removeprefix("/device:")
        peaks[f"memory_gib/{gpu.replace(':', '_')}"] = tf.config.experimental.get_memory_info(gpu)["peak"] / 2**30
    return peaks
