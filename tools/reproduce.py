"""Reproduces a table of the paper, or the baselines of a field: runs what is missing, prints measured beside published.

python tools/reproduce.py --table=1 --dry_run      what is there, what is missing, how long it would take here
python tools/reproduce.py --table=1                runs it; goes on where it was stopped
python tools/reproduce.py --table=adaptation       GTA5 and SYNTHIA to Cityscapes; also: wsss, deeplab_pytorch
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import tqdm
from absl import flags as absl_flags

from deeplab_tf import flags, run_folder
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS
from deeplab_tf.training import Recipe
from deeplab_tf.training.diagnosis import duration

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENTS = pathlib.Path("experiments")  # Included flagfiles count from the root of the repository.


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: of its flagfile.
        title: as in the table.
        published: mean IoU in percent by stage, "network" and "crf"; those that the table has.
        source: where the published figures come from, see experiments/README.md.
        split: to evaluate; None: the val_split of the row. The masks of "test" are scored by a server.
        evaluated: whether the row's figures are wanted, not its weights alone.
        classes: named subset that the mean is over, such as "synthia13"; None: all classes that occur.
        crf_file: in `experiments/`, the fixed parameters of the row's CRF; None: they are searched.
    """

    name: str
    title: str
    published: dict[str, float]
    source: str = "text"
    split: str | None = None
    evaluated: bool = True
    classes: str | None = None
    crf_file: str | None = None

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
        """The settings with which an evaluation counts, in terms of `Evaluation.made_with`."""
        from deeplab_tf.crf import DenseCRF
        from deeplab_tf.inference.tiling import Tiling

        recipe, crf_file = self.recipe, self.model_dir / run_folder.CRF_FILE
        crf_file = EXPERIMENTS / self.crf_file if self.crf_file else crf_file
        scales = recipe.eval_scales or recipe.scales
        tiling = recipe.tile_size and Tiling(recipe.tile_size, recipe.tile_overlap, recipe.output_stride, scales)
        crf = DenseCRF.load(crf_file) if crf_file.is_file() else DenseCRF()
        return {
            "dataset": self.settings["dataset"],
            "split": self.split or recipe.val_split,
            "limit": None,
            "checkpoint": f"ckpt-{recipe.max_steps}",
            **recipe.inference_options(),
            "scales": list(scales),
            "tile_size": tiling and tiling.size,
            "tile_overlap": tiling and tiling.overlap,
            "crf": crf.parameters if "crf" in self.settings else None,
        }

    def measured(self) -> dict[str, float] | None:
        """Mean IoU in percent by stage, as the row asks for it; None where that is still to be evaluated."""
        from deeplab_tf import data
        from deeplab_tf.evaluation import StoredEvaluation

        if not self.trained():
            return None
        dataset, _, split = (self.split or self.recipe.val_split).rpartition(":")
        images = data.info(dataset or self.settings["dataset"], FLAGS.data_dir).splits.get(split)
        wanted = self.wanted()
        for path in sorted(self.model_dir.glob("evaluation*.json")):
            try:
                evaluation = StoredEvaluation.load(path)
            except UserError:
                continue
            made_with = {name: evaluation.made_with.get(name) for name in wanted}
            if wanted["crf"] is None:
                made_with["crf"] = None  # What was evaluated with a CRF holds the network alone as well.
            if evaluation.images == images and made_with == wanted:
                return {stage: 100 * self._mean(evaluation, stage) for stage in evaluation.mean_iou}
        return None

    def _mean(self, evaluation, stage: str) -> float:
        """The mean IoU, in [0, 1], over the classes that the row asks for."""
        from deeplab_tf.counts import mean_iou
        from deeplab_tf.evaluation.tables import SUBSETS

        if self.classes is None:
            return evaluation.mean_iou[stage]
        counts = evaluation.image_counts
        places = [counts.class_names.index(name) for name in SUBSETS[self.classes]]
        return float(mean_iou(getattr(counts, stage).sum(axis=0)[:, places]))

    def has_crf(self) -> bool:
        """Whether the run has the CRF that the row asks for: a fixed one, or one searched as Sec. 4.1.1 says."""
        from deeplab_tf.crf import DenseCRF
        from deeplab_tf.crf.dense_crf import read_searched_for

        crf_file = self.model_dir / run_folder.CRF_FILE
        if self.crf_file:
            fixed = DenseCRF.load(EXPERIMENTS / self.crf_file)
            return crf_file.is_file() and DenseCRF.load(crf_file).parameters == fixed.parameters
        searched_for = read_searched_for(crf_file) if crf_file.is_file() else {}
        return searched_for.get("checkpoint") == f"ckpt-{self.recipe.max_steps}"

    @property
    def submission_dir(self) -> pathlib.Path:
        """Folder of the masks for a server."""
        return self.model_dir / "submission"

    def run(self) -> None:
        """Trains, searches the CRF's parameters and evaluates, what of that is missing."""
        if self.pretraining is not None and not self.pretraining.trained():
            self.pretraining.run()
        if not self.trained():
            self._command("train.py")
        if self.evaluated and "crf" in self.settings and not self.has_crf():
            if self.crf_file:
                shutil.copyfile(EXPERIMENTS / self.crf_file, self.model_dir / run_folder.CRF_FILE)
            else:
                self._command("tools/search_crf.py")
        if self.evaluated and self.measured() is None:
            submission = [f"--val_split={self.split}", f"--submission_dir={self.submission_dir}"] if self.split else []
            self._command("evaluate.py", *submission)

    def _command(self, name: str, *options: str) -> None:
        passed = ("data_dir", "raw_dir", *(["train_masks"] if "train_masks" in self.settings else []))
        obeyed = [flag for flag in passed if FLAGS[flag].value and flag in flags.OBEYED[name]]
        given = [f"--{flag}={FLAGS[flag].value}" for flag in obeyed]
        command = [sys.executable, name, f"--flagfile={EXPERIMENTS / self.name}.flags", *given, *options]
        print("running   ", " ".join(["python", *command[1:]]), flush=True)
        if subprocess.run(command).returncode:
            raise UserError(f"{self.name}: {name} stopped, see above; the same command goes on from there")


def main() -> None:
    """Prints the plan, runs what is missing, prints the table."""
    for name in ("data_dir", "raw_dir", "train_masks"):
        if FLAGS[name].value:
            FLAGS[name].value = os.path.abspath(os.path.expanduser(FLAGS[name].value))
    os.chdir(REPOSITORY)
    tables = json.loads((EXPERIMENTS / "published.json").read_text(encoding="utf-8"))
    rows = [
        Row(
            row["row"],
            row["title"],
            {stage: row[stage] for stage in ("network", "crf") if stage in row},
            row["source"],
            **{name: row.get(name) for name in ("split", "classes", "crf_file")},
        )
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
        mark = "?" if "unverified" in row.source or "inferred" in row.source else ""
        figures = [figure(row.published, stage, mark) for stage in ("network", "crf")]
        figures += [figure({} if row.split else measured or {}, stage) for stage in ("network", "crf")]
        state = "" if measured else "   to be evaluated" if row.trained() else "   to be trained"
        if measured and row.split:
            state = f"   masks for the server: {row.submission_dir}"
        lines.append(f"{row.title:<{width}}{figures[0]:>12}{figures[1]:>10}{figures[2]:>12}{figures[3]:>10}{state}")
    of_the_paper = all(row.source.startswith(("text", "none", "derived")) for row in rows)
    lines.append(f"\npublished figures{', from arXiv 1606.00915v2' * of_the_paper}:")
    sources = {row.source: [other.title for other in rows if other.source == row.source] for row in rows}
    lines += [
        f"  {source}" + (f" ({'; '.join(titles)})" if len(sources) > 1 else "") for source, titles in sources.items()
    ]
    return "\n".join(lines)


def figure(values: dict[str, float], stage: str, mark: str = "") -> str:
    """A percentage as text, with a mark where something about it is not verified."""
    return f"{values[stage]:.2f}{mark}" if stage in values else "-"


def estimate(rows: list[Row]) -> str:
    """The time that the missing trainings would take on this machine, as text."""
    missing = {}
    for row in rows:
        for run in (row.pretraining, row):
            if run is not None and not run.trained():
                missing.setdefault(run.model_dir, run)
    if not missing:
        return "Nothing is left to train."
    lines, total = ["left to train, and how long it would take here, by the time of the update that is made:"], 0.0
    for run in tqdm.tqdm(list(missing.values()), "timing", leave=False):
        recipe = run.recipe
        timed = dataclasses.replace(recipe, max_steps=1, learning_rate=0.0, initial_weights=None)
        seconds = measured_update(timed, run.settings["dataset"])
        total += seconds * recipe.max_steps
        lines.append(
            f"  {run.name:<32} {recipe.max_steps:>6} updates of {recipe.batch_size:>2} crops of {recipe.crop_size}, "
            f"{seconds:.2f} s each: {duration(seconds * recipe.max_steps)}"
        )
    return "\n".join([*lines, f"together {duration(total)}, without reading the data and the evaluations"])


@functools.lru_cache
def measured_update(recipe: Recipe, dataset: str) -> float:
    """Seconds of one update; equal updates of several rows are timed once."""
    from deeplab_tf import data
    from deeplab_tf.training.timing import seconds_per_update

    return seconds_per_update(recipe, data.info(dataset).num_classes)


if __name__ == "__main__":
    flags.run(main, "tools/reproduce.py", required=("table",))
