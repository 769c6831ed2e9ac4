"""Ctrl-C answers at once, and the second one ends the process, whatever native code is doing."""

import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import ctypes, hashlib, sys, time
from deeplab_tf.stopping import StopRequest
assert "tensorflow" not in sys.modules
with StopRequest(lambda: "stopping after this").listening():
    print("ready", flush=True)
    {wait}
"""
# A mutex that is locked twice holds the main thread in native code, from which no signal calls it back.
STUCK = (
    "mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None); [libc.pthread_mutex_lock(mutex) for _ in 'ab']"
)


def start(wait: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(wait=wait)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_answers_while_native_code_runs_and_the_second_ends_it():
    process = start(STUCK)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "stopping after this\n"
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - asked < 10  # Two seconds on an idle machine.


# Part of a second in native code: Python then learns of both signals at once, and of the second one first.
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 1_000_000); "


@pytest.mark.parametrize("first", ["", BUSY], ids=["waiting", "busy"])
def test_python_ends_in_order_where_it_can(first):
    process = start(f"try:\n        {first}time.sleep(60)\n    finally:\n        print('tidied', file=sys.stderr)")
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert "tidied" in process.communicate(timeout=30)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_signal_is_remembered_and_the_old_handlers_return(number):
    from deeplab_tf.stopping import StopRequest

    before = signal.getsignal(number)
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(number)
        assert stop.signal_number() == number
    assert signal.getsignal(number) == before
