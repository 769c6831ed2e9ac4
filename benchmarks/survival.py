"""Kills, damages and starves trainings at random: each must end bit for bit as one that was left alone.

python benchmarks/survival.py                            until 100 processes have been killed
python benchmarks/survival.py --kills=1000 --seed=7

A small network (resnet_tiny) learns the data set `shapes` for 60 updates, with a checkpoint every 4 and a validation
every 10. It is started again and again, each time with one trouble, until it ends; then its checkpoints, best/ and
validations are compared with those of the undisturbed run, and the next run begins. A trouble has failed when the
process does not end as it should (a stack trace, another exit status, a hang), and, with all the others of its run,
when the run ends otherwise than the undisturbed one. Failed runs stay in --keep.

Trainings are forked from a process that has imported TensorFlow and computed nothing with it: a start costs five
seconds, not twelve. The disk is one of memory that another file fills, where the user may mount (root); elsewhere no
file may grow beyond a limit.
"""

import collections
import contextlib
import os
import pathlib
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import tqdm
from absl import app, flags
from survival_troubles import Trouble, damage, difference, draw, end_of

_KILLS = flags.DEFINE_integer("kills", 100, "Processes to kill, at least.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of all that is drawn at random.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where `shapes` is, or is to be, prepared; default: a new folder.")
_KEEP = flags.DEFINE_string("keep", "survival_failures", "Folder for runs that failed.")

SETTINGS = {
    "backbone": "resnet_tiny",
    "head": "linear",
    "scales": (1.0,),
    "crop_size": 65,
    "batch_size": 2,
    "learning_rate": 0.003,
    "classifier_multiplier": 1.0,
    "max_steps": 60,
    "steps_per_loop": 3,
    "checkpoint_every": 4,
    "eval_every": 10,
    "eval_limit": 4,
    "overlays": 0,
    "strategy": "one_device",
}
_DISK = 64 << 20  # bytes; a run has 13 MB
_MOST_ROOM = 8e6  # bytes, on a full disk
_PATIENCE = 300  # seconds, before a process counts as hanging
_CRASHED = 70  # exit status: an exception that is not a message to a user


def _train(model_dir: pathlib.Path, data_dir: pathlib.Path, trouble: Trouble) -> None:
    """A training, as train.py makes it, in which a kill is sent by the process to itself."""
    from deeplab_tf import data, training
    from deeplab_tf.training import assembly
    from deeplab_tf.training.checkpoints import Checkpoints

    seen = collections.Counter()

    def at(moment: str) -> None:
        """Begins to wait for the signal, if this is the moment."""
        if trouble.kind == "kill" and trouble.detail == moment and seen[moment] == trouble.occurrence:
            threading.Timer(trouble.delay, os.kill, (os.getpid(), trouble.signal_number)).start()
        seen[moment] += 1

    def marked(moment: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            at(moment)
            return function(*args, **kwargs)

        return call

    make_validate = assembly.make_validate
    patched = {
        (Checkpoints, "save"): marked("saving", Checkpoints.save),
        (Checkpoints, "record"): marked("best", Checkpoints.record),
        (assembly, "make_validate"): lambda *args, **kwargs: marked("validation", make_validate(*args, **kwargs)),
    }
    with contextlib.ExitStack() as stack:
        for (owner, name), function in patched.items():
            stack.enter_context(mock.patch.object(owner, name, function))
        at("start")
        directory = data.prepared_directory("shapes", data_dir)
        recipe = training.Recipe(**SETTINGS)
        training.train(model_dir, directory, recipe, on_loop=lambda step, scalars: at("updates"))


def start(
    model_dir: pathlib.Path, data_dir: pathlib.Path, trouble: Trouble, log: pathlib.Path, most_bytes: int = 0
) -> int:
    """Forks a training, and returns its number; its output goes to `log`.

    Its exit status is that of train.py; `_CRASHED` where train.py would have shown a stack trace.
    """
    from deeplab_tf.errors import UserError

    child = os.fork()
    if child:
        return child
    status = _CRASHED
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if most_bytes:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        _train(model_dir, data_dir, trouble)
        status = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except SystemExit as stopped:
        status = stopped.code
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # noqa: BLE001 - the parent must know
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int | None:
    """The exit status of a process, minus the number of the signal that ended it; None where it hangs: it is killed."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def in_a_process(function: Callable, *arguments):
    """The result of a function that computes with TensorFlow, which this process must not, or it could not fork."""
    with tempfile.TemporaryDirectory() as folder:
        answer = pathlib.Path(folder) / "answer"
        child = os.fork()
        if not child:
            try:
                answer.write_bytes(pickle.dumps(function(*arguments)))
            finally:
                os._exit(0)
        wait(child)
        return pickle.loads(answer.read_bytes())


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[bool]:
    """Mounts a disk of memory at a folder; yields whether that worked."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "survival", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)


class Trial:
    """Runs with troubles, and how they fared.

    Args:
        disk: folder for the runs.
        mounted: whether it is a disk of its own, which may be filled.
        logs: folder for what the processes print.
        data_dir: where `shapes` is prepared.
        keep: folder for runs that failed.
    """

    def __init__(
        self, disk: pathlib.Path, mounted: bool, logs: pathlib.Path, data_dir: pathlib.Path, keep: pathlib.Path
    ):
        self.disk, self.mounted, self.logs, self.data_dir, self.keep = disk, mounted, logs, data_dir, keep
        self.tried: collections.Counter[str] = collections.Counter()
        self.failed: collections.Counter[str] = collections.Counter()
        self.kills = 0
        self.expected = self._undisturbed()

    def _undisturbed(self) -> dict[str, np.ndarray]:
        """The end of the run that the others are compared with."""
        model_dir, log = self.disk / "undisturbed", self.logs / "undisturbed"
        if wait(start(model_dir, self.data_dir, Trouble("none"), log)) != 0:
            raise RuntimeError(f"the undisturbed run failed: {log.read_text()}")
        return in_a_process(end_of, model_dir)

    def run(self, name: str, rng: np.random.Generator, say: Callable[[str], None]) -> None:
        """Starts a run with trouble after trouble until it ends, and compares its end."""
        model_dir, log = self.disk / name, self.logs / name
        met: list[str] = []
        status, problem = None, ""
        while status != 0 and not problem:
            trouble = draw(rng)
            if trouble.kind == "damage" and not damage(model_dir, trouble.detail, rng):
                continue
            with log.open("a") as file:
                print(f"--- {trouble}", file=file)
            status, problem = self._meet(model_dir, trouble, log)
            say(f"{name}: {trouble}: exit status {status}")
            if status != 0 or trouble.kind != "kill":  # else the run had ended before the signal came
                met.append(str(trouble))
                self.kills += trouble.kind == "kill"
        wrong = in_a_process(difference, model_dir, self.expected) if not problem else ""
        self.tried.update([*met, "whole runs"])
        self.failed.update([met[-1]] if problem else met if wrong else [])
        if problem or wrong:
            self.failed["whole runs"] += 1
            say(f"{name}: FAILED: {problem or wrong}; kept in {self.keep}")
            shutil.copytree(model_dir, self.keep / name, dirs_exist_ok=True)
            shutil.copy(log, self.keep / f"{name}.log")
        shutil.rmtree(model_dir, ignore_errors=True)

    def _meet(self, model_dir: pathlib.Path, trouble: Trouble, log: pathlib.Path) -> tuple[int | None, str]:
        """Starts the training with a trouble; its exit status, and what was wrong with that."""
        if trouble.kind == "full disk":
            return self._on_full_disk(model_dir, trouble, log)
        child = start(model_dir, self.data_dir, trouble, log)
        problem = self._second_process(model_dir) if trouble.kind == "second process" else ""
        status, expected = wait(child), [0]
        if trouble.kind == "kill":
            number = trouble.signal_number
            expected += [-number] if number == signal.SIGKILL else [-number, 128 + number]
        if status not in expected:
            problem = f"{trouble}: found the exit status {status}, expected one of {expected}"
        return status, problem

    def _second_process(self, model_dir: pathlib.Path) -> str:
        """Starts another training beside the one at work; what is wrong if no line refuses it."""
        time.sleep(2)
        log = self.logs / "second"
        status = wait(start(model_dir, self.data_dir, Trouble("none"), log))
        said = log.read_text()
        log.unlink()
        refused = status == 1 and "is being trained by process" in said
        return "" if refused else f"a second process: found the exit status {status} and {said[-300:]!r}"

    def _on_full_disk(self, model_dir: pathlib.Path, trouble: Trouble, log: pathlib.Path) -> tuple[int | None, str]:
        """Starts the training where only some of its files have room."""
        room, ballast = int(trouble.share * _MOST_ROOM), self.disk / "ballast"
        if self.mounted:
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(self.disk).free - room))
        status = wait(start(model_dir, self.data_dir, trouble, log, 0 if self.mounted else room // 4))
        ballast.unlink(missing_ok=True)
        last = (log.read_text().splitlines() or [""])[-1]
        one_line = status == 0 or status == 1 and last.startswith("error: ")
        return status, "" if one_line else f"full disk: found the exit status {status} and {last[-300:]!r}"

    def table(self) -> str:
        """Numbers tried, survived and failed, by trouble."""
        lines = [f"{'':<44}{'tried':>8}{'survived':>10}{'failed':>8}"]
        for name in sorted(self.tried, key=lambda name: (name == "whole runs", name)):
            tried, failed = self.tried[name], self.failed[name]
            lines.append(f"{name:<44}{tried:>8}{tried - failed:>10}{failed:>8}")
        return "\n".join(lines)


def main(_) -> int:
    """Makes runs until enough processes are killed, and prints the table; exit status 1 where something failed."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    from deeplab_tf import data
    from deeplab_tf.evaluation import validation  # noqa: F401 - imported once, before all forks
    from deeplab_tf.training import assembly  # noqa: F401

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        for part in ("disk", "logs"):
            (folder / part).mkdir()
        data_dir = pathlib.Path(_DATA_DIR.value or folder / "data").expanduser().resolve()
        in_a_process(data.prepare, "shapes", data_dir)
        mounted = stack.enter_context(small_disk(folder / "disk"))
        trial = Trial(folder / "disk", mounted, folder / "logs", data_dir, pathlib.Path(_KEEP.value).expanduser())
        with tqdm.tqdm(total=_KILLS.value, unit="kill", dynamic_ncols=True) as progress:
            run = 0
            while trial.kills < _KILLS.value or run == 0:
                trial.run(f"run{run}", np.random.default_rng([_SEED.value, run]), progress.write)
                progress.update(trial.kills - progress.n)
                run += 1
    print(f"\n{trial.table()}\n")
    print(f"{trial.kills} processes killed, {time.monotonic() - began:.0f} s, seed {_SEED.value}, ", end="")
    print("a full disk" if mounted else "files that may not grow, for lack of the right to mount a disk")
    return 1 if trial.failed else 0


if __name__ == "__main__":
    app.run(main)
