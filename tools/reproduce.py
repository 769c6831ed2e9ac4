"""Reproduces a table of the paper: runs what is missing, prints measured beside published figures.

python tools/reproduce.py --table=1 --dry_run      what is there, what is missing, how long it would take here
python tools/reproduce.py --table=1                runs it; goes on where it was stopped
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time

import tqdm
from absl import flags as absl_flags

from deeplab_tf import flags, run_folder
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS
from deeplab_tf.training import Recipe

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENTS = pathlib.Path("experiments")  # Included flagfiles count from the root of the repository.


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: of its flagfile.
        title: as in the table.
        published: mean IoU in percent by stage, "network" and "crf"; those that the table has.
        evaluated: whether the row's figures are wanted, not its weights alone.
    """

    name: str
    title: str
    published: dict[str, float]
    evaluated: bool = True

    @functools.cached_property
    def settings(self) -> dict[str, str]:
        """The flags of the row by name, those that are given in its flagfile and the included ones."""
        lines = absl_flags.FlagValues().read_flags_from_files([f"--flagfile={EXPERIMENTS / self.name}.flags"])
        pairs = (line.removeprefix("--").partition("=") for line in lines)
        return {name: value if equals else "true" for name, equals, value in pairs}

    @property
    def model_dir(self) -> pathlib.Path:
        """Folder of the row's run."""
        return pathlib.Path(self.settings["model_dir"])

    @property
    def pretraining(self) -> "Row | None":
        """The run whose weights this one starts from."""
        start = pathlib.Path(self.settings["initial_weights"])
        return Row(start.parts[1], "pretraining", {}, evaluated=False) if start.parts[0] == "runs" else None

    @property
    def recipe(self) -> Recipe:
        """The training of the row."""
        return Recipe.from_flags(self.settings)

    def trained(self) -> bool:
        """Whether the last checkpoint is that of the last update."""
        last = run_folder.latest_checkpoint(self.model_dir)
        return last is not None and run_folder.checkpoint_step(last) == self.recipe.max_steps

    def wanted(self) -> dict[str, object]:
        """How an evaluation must have been made to count, in terms of `Evaluation.made_with`."""
        from deeplab_tf.crf import DenseCRF
        from deeplab_tf.inference.tiling import Tiling

        recipe, crf_file = self.recipe, self.model_dir / run_folder.CRF_FILE
        scales = recipe.eval_scales or recipe.scales
        tiling = recipe.tile_size and Tiling(recipe.tile_size, recipe.tile_overlap, recipe.output_stride, scales)
        crf = DenseCRF.load(crf_file) if crf_file.is_file() else DenseCRF()
        return {
            "dataset": self.settings["dataset"],
            "split": recipe.val_split,
            "limit": None,
            "checkpoint": f"ckpt-{recipe.max_steps}",
            "scales": list(scales),
            "mirror": recipe.eval_mirror,
            "tile_size": tiling and tiling.size,
            "tile_overlap": tiling and tiling.overlap,
            "crf": crf.parameters if "crf" in self.settings else None,
        }

    def measured(self) -> dict[str, float] | None:
        """Mean IoU in percent by stage, as the row asks for it; None where that is still to be evaluated."""
        from deeplab_tf import data
        from deeplab_tf.evaluation import StoredEvaluation

        path = self.model_dir / run_folder.evaluation_files().figures
        if not (self.trained() and path.is_file()):
            return None
        try:
            evaluation = StoredEvaluation.load(path)
        except UserError:
            return None
        images = data.info(self.settings["dataset"], FLAGS.data_dir).splits[self.recipe.val_split]
        wanted = self.wanted()
        made_with = {name: evaluation.made_with.get(name) for name in wanted}
        if wanted["crf"] is None:
            made_with["crf"] = None  # What was evaluated with a CRF holds the network alone as well.
        if evaluation.images != images or made_with != wanted:
            return None
        return {stage: 100 * value for stage, value in evaluation.mean_iou.items()}

    def run(self) -> None:
        """Trains and evaluates what is missing."""
        if self.pretraining is not None and not self.pretraining.trained():
            self.pretraining.run()
        if not self.trained():
            self._command("train.py")
        if self.evaluated and self.measured() is None:
            self._command("evaluate.py")

    def _command(self, name: str) -> None:
        given = [f"--{flag}={FLAGS[flag].value}" for flag in ("data_dir", "raw_dir") if FLAGS[flag].value]
        command = [sys.executable, name, f"--flagfile={EXPERIMENTS / self.name}.flags", *given]
        print("running   ", " ".join(["python", *command[1:]]), flush=True)
        if subprocess.run(command).returncode:
            raise UserError(f"{self.name}: {name} stopped, see above; the same command goes on from there")


def main() -> None:
    """Prints the plan, runs what is missing, prints the table."""
    for name in ("data_dir", "raw_dir"):
        if FLAGS[name].value:
            FLAGS[name].value = os.path.abspath(os.path.expanduser(FLAGS[name].value))
    os.chdir(REPOSITORY)
    tables = json.loads((EXPERIMENTS / "published.json").read_text(encoding="utf-8"))
    if str(FLAGS.table) not in tables:
        raise UserError(f"--table={FLAGS.table}: found no experiments for it; there are {', '.join(tables)}")
    rows = [
        Row(row["row"], row["title"], {stage: row[stage] for stage in ("network", "crf") if stage in row})
        for row in tables[str(FLAGS.table)]
    ]
    if FLAGS.dry_run:
        print(f"{table(rows)}\n\n{estimate(rows)}")
        return
    for row in rows:
        row.run()
    print(f"\n{table(rows)}")


def table(rows: list[Row]) -> str:
    """Published beside measured figures, as text."""
    width = max(len(row.title) for row in rows)
    lines = [f"{'mean IoU, %':<{width}}{'published':>12}{'with CRF':>10}{'measured':>12}{'with CRF':>10}"]
    for row in rows:
        measured = row.measured()
        figures = [figure(row.published, "network"), figure(row.published, "crf")]
        figures += [figure(measured or {}, "network"), figure(measured or {}, "crf")]
        state = "" if measured else "   to be evaluated" if row.trained() else "   to be trained"
        lines.append(f"{row.title:<{width}}{figures[0]:>12}{figures[1]:>10}{figures[2]:>12}{figures[3]:>10}{state}")
    return "\n".join(lines)


def figure(values: dict[str, float], stage: str) -> str:
    """A percentage as text."""
    return f"{values[stage]:.2f}" if stage in values else "-"


def estimate(rows: list[Row]) -> str:
    """What the trainings that are missing would take on this machine, as text."""
    missing = {}
    for row in rows:
        for run in (row.pretraining, row):
            if run is not None and not run.trained():
                missing.setdefault(run.model_dir, run)
    if not missing:
        return "Nothing is left to train."
    lines, total = (
        ["left to train, and how long it would take here by the time of one crop, forward and backward:"],
        0.0,
    )
    for run in tqdm.tqdm(list(missing.values()), "timing", leave=False):
        settings = run.settings
        steps, batch = int(settings["max_steps"]), int(settings["batch_size"])
        seconds = seconds_per_crop(
            settings["backbone"], settings["head"], settings["scales"], int(settings["crop_size"])
        )
        total += seconds * steps * batch
        lines.append(
            f"  {run.name:<32} {steps:>6} updates of {batch:>2} crops of {settings['crop_size']}, "
            f"{seconds:.2f} s each: {duration(seconds * steps * batch)}"
        )
    return "\n".join([*lines, f"together {duration(total)}, without the evaluations"])


@functools.lru_cache
def seconds_per_crop(backbone: str, head: str, scales: str, crop_size: int) -> float:
    """Measures the forward and backward pass of one crop; the second of two, eagerly."""
    import tensorflow as tf

    from deeplab_tf import DeepLab

    model = DeepLab(backbone, head, scales=[float(scale) for scale in scales.split(",")])
    image = tf.zeros((1, crop_size, crop_size, 3))
    for _ in range(2):
        started = time.perf_counter()
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(scores) for scores in model.score_maps(image, training=True).values()])
        gradients = tape.gradient(loss, model.trainable_variables)
        float(tf.reduce_sum(gradients[0]))  # waits for an accelerator
        seconds = time.perf_counter() - started
    return seconds


def duration(seconds: float) -> str:
    """A length of time as text."""
    for unit, length in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.1f} minutes"


if __name__ == "__main__":
    flags.run(main, "tools/reproduce.py", required=("table",))
