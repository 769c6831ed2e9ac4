"""Mutated files of strangers: each must be read, or refused by one line, whatever is done to it.

python benchmarks/fuzz.py                                         10,000 files of each kind
python benchmarks/fuzz.py --kind=weights,requests --count=500 --seed=7
python benchmarks/fuzz.py --kind=images --file=fuzz_failures/...  one file again, with the stack trace

Kinds: images, masks, weights, annotations, requests (files and pixels that an exported model is sent). Small whole
files (benchmarks/fuzz_kinds.py) are mutated: bits flipped, bytes and numbers replaced, parts cut out, doubled, moved or
taken from another file, headers exchanged; checksums are mended then in half of them, so that what they protect is
reached. Worker processes read them. A file has failed when what it raises is no `UserError`, its answer is not good, it
takes more memory or time than --megabytes or --seconds, or the worker dies. Failed files are kept in --keep.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import fuzz_kinds
import numpy as np
import tqdm

from deeplab_tf.parallel import available_cores

_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (
    *("0", "-1", "-5", "1e30", "1e400", "NaN", "-Infinity", "65536", "4294967296", "9" * 400),
    *('"60"', '""', '"\\u0000"', '"' + "n" * 300 + '"', '"../a.jpg"', "null", "true"),
    *("[]", "{}", "[[]]", '{"size": [33, 41], "counts": "~"}', "[" * 2000 + "]" * 2000),
)
_ADDRESS_SPACE = 6 << 30  # bytes that a worker may take beyond what it has when it begins
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


def mutated(rng: np.random.Generator, starts: dict[str, bytes], index: int) -> tuple[str, bytes]:
    """A file made of one of the whole ones; the name stays.

    Args:
        rng: of this file alone.
        starts: the whole files, by name.
        index: of this file; the first ones of all are the whole ones themselves.
    """
    names = sorted(starts)
    if index < len(names):
        return names[index], starts[names[index]]
    name = names[rng.integers(len(names))]
    content, other = starts[name], starts[names[rng.integers(len(names))]]
    is_zip = content.startswith(b"PK\3\4")
    if is_zip and rng.random() < 0.6:
        return name, _inside_zip(rng, content)
    content = _changed(rng, content, other)
    return name, _png_mended(content) if rng.random() < 0.5 else content


def _changed(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """One to four changes; a text is changed by its words as well."""
    is_text = content[:1] in (b"{", b"[", b"<") and rng.random() < 0.8
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        content = _word_changed(rng, content) if is_text else _bytes_changed(rng, content, other)
    return content


def _word_changed(rng: np.random.Generator, text: bytes) -> bytes:
    """Replaces a number, a word or a list of numbers of a text in JSON or XML."""
    words = [*re.finditer(rb'-?\d+\.?\d*|"[^"]*"|\[[^\[\]]*\]|true|false|null', text)]
    if not words:
        return text
    word = words[rng.integers(len(words))]
    return text[: word.start()] + _WORDS[rng.integers(len(_WORDS))].encode() + text[word.end() :]


def _bytes_changed(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """One change to bytes; most fall where they are not zero, or near the beginning."""
    if not content:
        return other
    at, kind = _place(rng, content), int(rng.integers(9))
    length = int(min(len(content) - at, rng.choice([1, 2, 4, 8, 16, 64, 512])))
    if kind == 0:  # bits
        changed = bytearray(content)
        for _ in range(int(rng.choice([1, 1, 2, 8]))):
            changed[_place(rng, content)] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == 1:
        return content[:at] + bytes([rng.choice([0, 1, 127, 128, 255, rng.integers(256)])]) + content[at + 1 :]
    if kind in (2, 3):  # a number, as lengths and sizes are
        size = int(rng.choice([1, 2, 4, 8]))
        number = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
        order = "little" if rng.random() < 0.5 else "big"
        return content[:at] + number.to_bytes(size, order) + content[at + size :]
    if kind == 4:
        return content[:at]
    if kind == 5:  # a part cut out
        return content[:at] + content[at + length :]
    if kind == 6:  # a part twice
        return content[: at + length] + content[at:]
    if kind == 7:  # a part of another file
        there = _place(rng, other)
        return content[:at] + other[there : there + length] + content[at + length :]
    header = int(rng.choice([4, 8, 16, 32]))  # the header of another file
    return other[:header] + content[header:]


def _place(rng: np.random.Generator, content: bytes) -> int:
    """A place in a file: one that is not zero, one near the beginning, or any."""
    chance = rng.random()
    if chance < 0.6 and len(content) > 4096:
        filled = np.flatnonzero(np.frombuffer(content, np.uint8))
        return int(filled[rng.integers(len(filled))]) if len(filled) else 0
    return int(rng.integers(min(len(content), 128) if chance > 0.8 else len(content)))


def _png_mended(content: bytes) -> bytes:
    """A PNG with the right checksum for each of its chunks; another file as it is."""
    if not content.startswith(b"\x89PNG"):
        return content
    mended, at = [content[:8]], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        mended += [content[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*mended, content[at:]])


def _inside_zip(rng: np.random.Generator, content: bytes) -> bytes:
    """A zip file with one of its members changed, and all checksums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as made:
        members = archive.infolist()
        chosen = [member for member in members if member.file_size and not member.filename.endswith("version")]
        target = chosen[0] if rng.random() < 0.5 else chosen[rng.integers(len(chosen))]
        for member in members:
            body = archive.read(member)
            if member is target:
                body = _changed(rng, body, content)
            made.writestr(member.filename, body, member.compress_type)
    return file.getvalue()


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
    except fuzz_kinds.UserError as error:
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
    return _status("VmRSS")


def memory_peak() -> float:
    """The most bytes in memory since `memory_now`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    """A figure of this process, bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024.0 * int(line.split()[1])
    return 0.0


def _processor_seconds(process: int) -> float:
    """The time that a process has had a processor for; 0 where it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(name: str, seed: int, indices: Sequence[int], scratch: pathlib.Path, connection, limits: Limits) -> None:
    """A worker: reads the files of some indices, and sends what came of each."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    kind = fuzz_kinds.KINDS[name](scratch)
    limit = int(_status("VmSize")) + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send(Outcome(-1))
    for index in indices:
        file, content = mutated(np.random.default_rng([seed, index]), kind.starts, index)
        (scratch / "current").write_bytes(content)
        (scratch / "current.name").write_text(file)
        os.truncate(log, 0)
        outcome = outcome_of(kind, index, file, content, limits)
        if outcome.status == "failed":
            os.replace(scratch / "current", scratch / str(index))
        connection.send(outcome)


class _Worker:
    """A process that reads files, replaced by another where it dies."""

    def __init__(self, name: str, seed: int, indices: Sequence[int], scratch: pathlib.Path, limits: Limits):
        self._name, self._seed, self.scratch, self._limits = name, seed, scratch, limits
        scratch.mkdir()
        self.left = collections.deque(indices)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        arguments = (self._name, self._seed, list(self.left), self.scratch, theirs, self._limits)
        self.process = context.Process(target=_work, args=arguments)
        self.process.start()
        theirs.close()
        self._ready = False
        self._hear()

    def _hear(self) -> None:
        self._heard, self._worked = time.monotonic(), _processor_seconds(self.process.pid)

    def _is_silent(self) -> bool:
        """Whether it has worked, or waited, for too long since it was heard; other processes may have the processor."""
        waited, worked = time.monotonic() - self._heard, _processor_seconds(self.process.pid) - self._worked
        if not self._ready:
            return waited > 600
        return worked > 3 * self._limits.seconds or waited > 30 * self._limits.seconds

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes that have come in; of a worker that died or hangs, a failure."""
        while self.left:
            try:
                while self.connection.poll():
                    outcome = self.connection.recv()
                    self._ready = True
                    self._hear()
                    if outcome.index >= 0:
                        self.left.popleft()
                        yield outcome
                if not self._is_silent():
                    return
                words = f"no answer for {time.monotonic() - self._heard:.0f} s"
                self.process.kill()
            except EOFError:
                self.process.join()
                words = f"the process ended with {self.process.exitcode}"
            if not self._ready:
                raise RuntimeError(f"a worker does not start: {(self.scratch / 'log').read_text()[-2000:]}")
            self.process.join()
            os.replace(self.scratch / "current", self.scratch / str(self.left[0]))
            said = (self.scratch / "log").read_text(errors="replace").strip().splitlines()[-1:]
            yield Outcome(self.left.popleft(), (self.scratch / "current.name").read_text(), words=f"{words}: {said}")
            if self.left:
                self._start()


@dataclasses.dataclass
class Summary:
    """Of one kind."""

    name: str
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    slowest: float = 0.0
    largest: float = 0.0
    findings: dict[str, list[Outcome]] = dataclasses.field(default_factory=dict)

    def add(self, outcome: Outcome) -> bool:
        """Counts a file; whether it is one to keep: at most three of one finding are."""
        self.counts[outcome.status] += 1
        self.slowest, self.largest = max(self.slowest, outcome.seconds), max(self.largest, outcome.megabytes)
        if outcome.status != "failed":
            return False
        alike = self.findings.setdefault(re.sub(r"0x\w+|[\d.]+|'.*?'|\".*?\"", "#", outcome.words)[:120], [])
        alike.append(outcome)
        return len(alike) <= 3


def fuzz(name: str, count: int, seed: int, workers: int, limits: Limits, keep: pathlib.Path) -> Summary:
    """Reads `count` mutated files of a kind in worker processes."""
    summary = Summary(name)
    with tempfile.TemporaryDirectory() as folder, tqdm.tqdm(total=count, desc=name, unit=" files") as progress:
        shares = [range(worker, count, workers) for worker in range(workers)]
        busy = [
            _Worker(name, seed, share, pathlib.Path(folder) / str(i), limits) for i, share in enumerate(shares) if share
        ]
        try:
            while busy := [worker for worker in busy if worker.left]:
                multiprocessing.connection.wait([worker.connection for worker in busy], timeout=1)
                for worker in busy:
                    for outcome in worker.outcomes():
                        progress.update()
                        if summary.add(outcome):
                            keep.mkdir(parents=True, exist_ok=True)
                            kept = keep / f"{name}-{seed}-{outcome.index}-{outcome.name}"
                            shutil.copy(worker.scratch / str(outcome.index), kept)
                            progress.write(f"{name} {outcome.index} {outcome.name}: {outcome.words}")
                progress.set_postfix(failed=summary.counts["failed"], refresh=False)
        finally:
            for worker in busy:
                worker.process.kill()
    return summary


def table(summaries: Sequence[Summary]) -> str:
    """Numbers tried, answered, refused and failed, by kind, and the findings."""
    lines = [f"{'':<12}{'tried':>8}{'answered':>10}{'refused':>9}{'failed':>8}{'slowest':>10}{'most memory':>13}"]
    for summary in summaries:
        counts = [summary.counts[status] for status in ("answered", "refused", "failed")]
        row = f"{summary.name:<12}{sum(counts):>8}{counts[0]:>10}{counts[1]:>9}{counts[2]:>8}"
        lines.append(f"{row}{summary.slowest:>8.2f} s{summary.largest:>10.0f} MB")
    for summary in summaries:
        for alike in summary.findings.values():
            lines.append(f"{summary.name}, {len(alike)} times: {alike[0].name}: {alike[0].words}")
    return "\n".join(lines)


def _once_more(name: str, file: pathlib.Path) -> None:
    """Reads a kept file in this process, with the stack trace of what it raises."""
    with tempfile.TemporaryDirectory() as folder:
        kind = fuzz_kinds.KINDS[name](pathlib.Path(folder))
        before, began = memory_now(), time.monotonic()
        try:
            kind.read(re.sub(r"^[a-z]+-\d+-\d+-", "", file.name), file.read_bytes())
        finally:
            print(f"{time.monotonic() - began:.2f} s, {(memory_peak() - before) / 1e6:.0f} MB", file=sys.stderr)


def main() -> None:
    """Fuzzes the kinds asked for, and prints the table; exit status 1 where a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default=",".join(fuzz_kinds.KINDS), help="kinds of files, joined by commas")
    parser.add_argument("--count", type=int, default=10_000, help="mutated files of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes")
    parser.add_argument("--seconds", type=float, default=10, help="most processor time that a file may take")
    parser.add_argument("--megabytes", type=float, default=1536, help="most memory that a file may take")
    parser.add_argument("--keep", default="fuzz_failures", help="folder for files that failed")
    parser.add_argument("--file", type=pathlib.Path, help="read this kept file once more, in this process")
    given = parser.parse_args()
    kinds = given.kind.split(",")
    if not fuzz_kinds.KINDS.keys() >= set(kinds):
        parser.error(f"--kind={given.kind}: expected some of {', '.join(fuzz_kinds.KINDS)}")
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    if given.file:
        _once_more(kinds[0], given.file)
        return
    limits = Limits(given.seconds, given.megabytes)
    keep = pathlib.Path(given.keep).expanduser()
    summaries = [fuzz(kind, given.count, given.seed, given.workers, limits, keep) for kind in kinds]
    print(f"\n{table(summaries)}\n")
    sys.exit(1 if any(summary.findings for summary in summaries) else 0)


if __name__ == "__main__":
    main()
