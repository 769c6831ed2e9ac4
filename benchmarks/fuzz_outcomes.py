"""The outcome of reading one file of benchmarks/fuzz.py: answered, refused or failed, in how much time and memory."""

import contextlib
import dataclasses
import pathlib
import time
import traceback

from deeplab_tf.errors import UserError

_LONGEST_MESSAGE = 1000  # characters


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that a file may take: seconds, and megabytes of memory."""

    seconds: float = 10
    megabytes: float = 1536  # a picture of Pillow's largest size, 179 megapixels, takes 0.5 GB in RGB


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of one file.

    Attributes:
        index: of the file; -1: the worker is ready.
        name: of the file.
        status: "answered", "refused" or "failed".
        words: the reason for a failure.
        seconds: that it took.
        megabytes: that it took at the most.
    """

    index: int
    name: str = ""
    status: str = "failed"
    words: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def outcome_of(kind, index: int, name: str, content: bytes, limits: Limits) -> Outcome:
    """Reads a file, and judges what comes of it.

    Args:
        kind: of `fuzz_kinds`.
        index: of the file.
        name: of the file.
        content: of the file.
        limits: of time and memory.
    """
    before, began = memory_now(), time.process_time()
    try:
        kind.read(name, content)
        status, words = "answered", ""
    except UserError as error:
        status, words = "refused", ""
        if content == kind.starts[name]:
            status, words = "failed", f"the whole file is refused: {error}"
        elif not 0 < len(str(error).strip()) <= _LONGEST_MESSAGE:
            status, words = "failed", f"a message of {len(str(error).strip())} characters: {error}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        status, words = (
            "failed",
            f"{type(error).__name__}: {error} ({pathlib.Path(place.filename).name}:{place.lineno})",
        )
    took, grown = time.process_time() - began, (memory_peak() - before) / 1e6
    if status != "failed" and (took > limits.seconds or grown > limits.megabytes):
        words = f"{status} after {took:.1f} s with {grown:.0f} MB"
        status = "failed"
    return Outcome(index, name, status, " ".join(words.split())[:300], took, grown)


def memory_now() -> float:
    """Bytes in memory; the peak that `memory_peak` tells counts from here."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory_peak() -> float:
    """The most bytes in memory since `memory_now`."""
    return memory("VmHWM")


def memory(field: str) -> float:
    """A figure of this process, bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024.0 * int(line.split()[1])
    return 0.0
