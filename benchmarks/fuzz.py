"""Mutated files: each must be read, or refused by one line, whatever was done to it.

python benchmarks/fuzz.py                                         10,000 files of each kind
python benchmarks/fuzz.py --kind=weights,requests --count=500 --seed=7
python benchmarks/fuzz.py --kind=images --file=fuzz_failures/...  one file again, with the stack trace

Kinds: images, masks, weights, annotations, requests (files and pixels that an exported model is sent). Small whole
files (benchmarks/fuzz_kinds.py) are mutated: bits flipped, bytes and numbers replaced, parts cut out, doubled, moved or
taken from another file, headers exchanged; checksums are mended then in half of them, so that what they protect is
reached. Worker processes read them. A file has failed when reading it raises anything but a `UserError`, gives a wrong
answer, takes more memory or time than --megabytes or --seconds, or ends the worker. Failed files are kept in --keep.
"""

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence

import fuzz_kinds
import numpy as np
import tqdm
from absl import app, flags
from fuzz_mutations import mutated
from fuzz_outcomes import Limits, Outcome, memory, memory_now, memory_peak, outcome_of

from deeplab_tf.parallel import available_cores

_KIND = flags.DEFINE_list("kind", list(fuzz_kinds.KINDS), "Kinds of files.")
_COUNT = flags.DEFINE_integer("count", 10_000, "Mutated files of each kind.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the mutations.", lower_bound=0)
_WORKERS = flags.DEFINE_integer("workers", available_cores(), "Processes.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 10, "Most processor time that a file may take.", lower_bound=0)
_MEGABYTES = flags.DEFINE_float("megabytes", 1536, "Most memory that a file may take.", lower_bound=0)
_KEEP = flags.DEFINE_string("keep", "fuzz_failures", "Folder for files that failed.")
_FILE = flags.DEFINE_string("file", None, "Read this kept file once more, in this process.")
flags.register_validator(
    "kind", lambda kinds: fuzz_kinds.KINDS.keys() >= set(kinds), f"expected some of {', '.join(fuzz_kinds.KINDS)}"
)

_ADDRESS_SPACE = 6 << 30  # bytes that a worker may take beyond what it has when it begins


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
    limit = int(memory("VmSize")) + _ADDRESS_SPACE
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
        self._asked, self._waited = time.monotonic(), 0.0
        self._worked = _processor_seconds(self.process.pid)

    def _is_silent(self) -> bool:
        """Whether it has worked, or waited, for too long since it was heard.

        Other processes may have the processor, and a time in which this process stood still too does not count.
        """
        now = time.monotonic()
        self._waited += min(now - self._asked, 5)
        self._asked = now
        if not self._ready:
            return self._waited > 600
        worked = _processor_seconds(self.process.pid) - self._worked
        return worked > 3 * self._limits.seconds or self._waited > 30 * self._limits.seconds

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
                words = f"no answer for {self._waited:.0f} s"
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


def main(_) -> int:
    """Fuzzes the kinds asked for, and prints the table; exit status 1 where a file failed."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    if _FILE.value:
        _once_more(_KIND.value[0], pathlib.Path(_FILE.value))
        return 0
    limits = Limits(_SECONDS.value, _MEGABYTES.value)
    keep = pathlib.Path(_KEEP.value).expanduser()
    summaries = [fuzz(kind, _COUNT.value, _SEED.value, _WORKERS.value, limits, keep) for kind in _KIND.value]
    print(f"\n{table(summaries)}\n")
    return 1 if any(summary.findings for summary in summaries) else 0


if __name__ == "__main__":
    app.run(main)
