"""Stopping long work from outside without losing it: SIGTERM (preemption) and Ctrl-C."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE = 1.5  # Seconds that a second Ctrl-C leaves to Python for an orderly end.


class Stopped(SystemExit):
    """The work was asked to stop and has saved its state.

    Uncaught, it ends the process with the exit status of the signal and without a stack trace.
    """

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)


class StopRequest:
    """Remembers SIGTERM or Ctrl-C until the work can look, and answers at once.

    A thread answers, because Python itself handles a signal only when TensorFlow has returned from what it is doing.

    Args:
        answer: returns the line that the first signal prints: what happens next, and what a second Ctrl-C costs.
    """

    def __init__(self, answer: Callable[[], str] = lambda: "stopping; Ctrl-C again ends at once"):
        self._answer = answer
        self._signal_number = 0
        self._ending = False

    def signal_number(self) -> int:
        """The first signal that this process received; 0 for none."""
        return self._signal_number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block SIGTERM and the first Ctrl-C only ask; a further Ctrl-C ends the process in two seconds."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread alone.
            return
        received, sender = socket.socketpair()
        sender.setblocking(False)
        previous_wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        watcher = threading.Thread(target=self._watch, args=(received,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_wakeup)
            sender.close()
            watcher.join()
            received.close()

    def _remember(self, signal_number: int, frame) -> None:
        if self._ending:
            self._ending = False  # Once: what tidies up is not interrupted.
            raise KeyboardInterrupt
        self._signal_number = self._signal_number or signal_number

    def _watch(self, received: socket.socket) -> None:
        """Reads the numbers of signals as they come, until the other end is closed.

        It alone knows their order: Python handles those that came meanwhile in the order of their numbers.
        """
        asked = False
        while numbers := received.recv(1):
            if numbers[0] not in SIGNALS:
                continue
            if not asked:
                print(f"\n{self._answer()}", file=sys.stderr, flush=True)
                asked = True
            elif numbers[0] == signal.SIGINT:
                self._ending = True
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                received.settimeout(_GRACE)
                with contextlib.suppress(TimeoutError):
                    while received.recv(1):
                        pass
                    return  # Python has left the block by itself.
                os._exit(128 + signal.SIGINT)
