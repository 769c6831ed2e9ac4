"""Stopping a training from outside without losing work: SIGTERM (preemption) and Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import tensorflow as tf


class Stopped(Exception):
    """The training was asked to stop; its state is saved.

    Attributes:
        signal_number: what asked.
    """

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class StopRequest:
    """Remembers a signal until the training can look.

    Args:
        strategy: on several hosts, one host's signal stops all of them at the same step.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self._signal_number = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block SIGTERM and the first Ctrl-C only ask; the second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread alone.
            return
        previous = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def signal_number(self) -> int:
        """The signal that any host has received; 0 for none. All hosts must ask at the same step."""
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._signal_number
        received = self._strategy.run(
            lambda number: tf.distribute.get_replica_context().all_gather(number, axis=0),
            args=(tf.constant([self._signal_number]),),
        )
        return int(tf.reduce_max(self._strategy.experimental_local_results(received)[0]).numpy())

    def _remember(self, signal_number: int, frame) -> None:
        if self._signal_number:
            raise KeyboardInterrupt
        self._signal_number = signal_number
