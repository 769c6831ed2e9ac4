"""Stopping a training from outside without losing work: SIGTERM (preemption) and Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import tensorflow as tf

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """The training was asked to stop and has saved its state.

    Uncaught, it ends the process with the exit status of the signal and without a stack trace.
    """

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)


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
        previous = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def signal_number(self) -> int:
        """The signal that any host has received; 0 for none. All hosts must ask at the same step."""
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._signal_number
        received = self._over_hosts(tf.constant([float(self._signal_number == number) for number in _SIGNALS]))
        return next((int(number) for number, hosts in zip(_SIGNALS, received.numpy(), strict=True) if hosts), 0)

    @tf.function
    def _over_hosts(self, received: tf.Tensor) -> tf.Tensor:
        """The sum over all hosts."""
        return self._strategy.reduce("SUM", self._strategy.run(tf.identity, args=(received,)), axis=None)

    def _remember(self, signal_number: int, frame) -> None:
        if self._signal_number:
            raise KeyboardInterrupt
        self._signal_number = signal_number
