"""Lines that tell, at a validation, that a training goes wrong, and the likely cause; and how long it will take.

The functions are pure: numbers in, a line out, which is empty where nothing is wrong.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

TIMED_STEP = 2  # the first update that compiles nothing
_ALL = 0.98  # share of the predicted pixels from which on one class takes everything
_MOST_NAMED = 5
_FALLS_BACK = 3  # validations below the best one, with a falling training loss, that count as overfitting
_DAY = 24 * 3600


def one_class_takes_all(
    confusion: np.ndarray, class_names: Sequence[str], training_pixels: Sequence[int] | None = None
) -> str:
    """A line where nearly all pixels are predicted as one class, and are truly of others.

    Args:
        confusion: int [C, C], rows are the truth.
        class_names: C names.
        training_pixels: of each class in the training masks, where they are known.
    """
    if not confusion.sum():
        return ""
    truth, predicted = (confusion.sum(axis) / confusion.sum() for axis in (1, 0))
    first = int(predicted.argmax())
    if predicted[first] < _ALL or truth[first] > predicted[first] - 0.05:
        return ""
    share = training_pixels[first] / max(1, sum(training_pixels)) if training_pixels else truth[first]
    cause = (
        f"it has {share:.0%} of the pixels to learn from, so try --class_weights=balanced, or train longer"
        if share > 0.5
        else "likely a learning rate that is too high, or masks that do not fit their images: look at them with "
        "datasets/prepare.py --summarize"
    )
    return f"{class_names[first]} takes {predicted[first]:.1%} of all pixels (truth: {truth[first]:.1%}); {cause}"


def never_predicted(confusion: np.ndarray, class_names: Sequence[str]) -> str:
    """A line about classes that are in the truth of the validation and nowhere predicted.

    Args:
        confusion: int [C, C], rows are the truth.
        class_names: C names.
    """
    truth, predicted = confusion.sum(1), confusion.sum(0)
    missed = np.flatnonzero((truth > 0) & (predicted == 0))
    if not len(missed):
        return ""
    share = truth[missed].sum() / truth.sum()
    rare = "they are rare, so try --class_weights=balanced, or train longer" if share < 0.1 else "train longer"
    return f"never predicted: {_named(class_names, missed)} ({share:.1%} of the true pixels); {rare}"


def never_trained(training_pixels: Sequence[int], class_names: Sequence[str], confusion: np.ndarray) -> str:
    """A line about classes that no training mask holds.

    Args:
        training_pixels: of each class in the training masks.
        class_names: C names.
        confusion: int [C, C] of a validation, rows are the truth.
    """
    missing = np.flatnonzero(np.asarray(training_pixels) == 0)
    if not len(missing):
        return ""
    validated = int((confusion.sum(1)[missing] > 0).sum())
    also = f" ({validated} of them in the validation masks, where they count as 0)" if validated else ""
    return (
        f"in no training mask: {_named(class_names, missing)}{also}; check --class_names and the split, or "
        "drop them with --class_map"
    )


def overfits(losses: Sequence[float], mean_ious: Sequence[float]) -> str:
    """A line where the training loss falls while the validations fall back.

    Args:
        losses: means of the training loss before each validation.
        mean_ious: of the validations, in [0, 1].
    """
    if not mean_ious or np.isnan(mean_ious).any():
        return ""
    best = int(np.argmax(mean_ious))
    since = len(mean_ious) - 1 - best
    falls = all(later < earlier for earlier, later in zip(losses[best:-1], losses[best + 1 :], strict=True))
    if since < _FALLS_BACK or not falls or mean_ious[-1] > mean_ious[best] - 0.005:
        return ""
    return (
        f"it overfits: the training loss falls ({losses[best]:.3g} to {losses[-1]:.3g}), and the last {since} "
        f"validations are below the best ({mean_ious[-1]:.1%} after {mean_ious[best]:.1%}); best/ stays, --patience=N "
        "ends such a run, more images or --color_jitter=0.3 may help"
    )


def time_needed(seconds_per_update: float, updates: int, on_cpu: bool) -> str:
    """A line about how long a training takes; empty below two minutes.

    Args:
        seconds_per_update: measured.
        updates: still to be made.
        on_cpu: whether there is no accelerator.
    """
    seconds = seconds_per_update * updates
    if seconds < 120:
        return ""
    line = f"{updates} updates of {seconds_per_update:.2g} s take about {duration(seconds)}, validations not counted"
    if seconds > _DAY and on_cpu:
        line += (
            "; there is no GPU here: --backbone=efficientnet_lite0 --scales=1 --crop_size=257 makes an update much "
            "shorter, and --max_steps=500 is enough for a first look"
        )
    return line


def validation_time(seconds: float, step: int, max_steps: int, eval_every: int) -> str:
    """A line about how long the validations to come take; empty below two minutes.

    Args:
        seconds: of one, measured.
        step: that it was made at.
        max_steps: updates of the whole training; the last one is validated.
        eval_every: updates between validations; 0: none.
    """
    count = (max_steps - 1) // eval_every - step // eval_every + 1 if eval_every and step < max_steps else 0
    if seconds * count < 120:
        return ""
    return (
        f"a validation takes {duration(seconds)}, the {count} to come about {duration(seconds * count)}; --eval_every "
        "and --eval_limit make them fewer and shorter"
    )


def duration(seconds: float) -> str:
    """A length of time in words, to the nearest unit."""
    for size, name in ((_DAY, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


class Watch:
    """Follows a training and prints each of these lines once, as long as it stays the same.

    Args:
        class_names: C names.
        training_pixels: of each class in the training masks; None where they are not known.
        max_steps: updates of the whole training.
        on_cpu: whether there is no accelerator.
        eval_every: updates between validations; 0: only at the end.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        training_pixels: Sequence[int] | None,
        max_steps: int,
        on_cpu: bool,
        eval_every: int = 0,
    ):
        self._class_names = class_names
        self._training_pixels = training_pixels
        self._max_steps = max_steps
        self._on_cpu = on_cpu
        self._eval_every = eval_every
        self._step = 0
        self._since_validation: list[float] = []
        self._losses: list[float] = []
        self._mean_ious: list[float] = []
        self._told: set[str] = set()

    def on_loop(self, step: int, scalars: Mapping[str, float]) -> None:
        """Notes the training loss of a loop of updates that ended at `step`; tells early how long the others take."""
        self._since_validation.append(scalars["loss/total"])
        self._step = step
        if step == TIMED_STEP:
            line = time_needed(1 / scalars["steps_per_second"], self._max_steps - step, self._on_cpu)
            if line:
                tell(line)

    def on_validation(self, confusion: np.ndarray, mean_iou: float, seconds: float = 0.0) -> None:
        """Looks at a validation, by its confusion matrix, int [C, C] with rows as the truth, and the time it took."""
        is_first = not self._mean_ious
        if is_first and (cost := validation_time(seconds, self._step, self._max_steps, self._eval_every)):
            tell(cost)
        if self._since_validation:
            self._losses.append(float(np.mean(self._since_validation)))
            self._mean_ious.append(mean_iou)
            self._since_validation = []
        pixels = self._training_pixels
        takes_all = one_class_takes_all(confusion, self._class_names, pixels)
        lines = {
            "all": takes_all,
            "predicted": "" if takes_all else never_predicted(confusion, self._class_names),
            "trained": never_trained(pixels, self._class_names, confusion) if pixels else "",
            "overfits": overfits(self._losses, self._mean_ious),
        }
        for kind, line in lines.items():
            # Numbers change at every validation: the names of the classes decide whether it is new.
            essence = f"{kind} {line.partition(' (')[0].partition(' takes ')[0]}"
            if line and essence not in self._told:
                tell(line)
            self._told = {told for told in self._told if not told.startswith(kind)} | ({essence} if line else set())


def tell(line: str) -> None:
    """Prints a line on the standard error, above the line of progress."""
    tqdm.tqdm.write(f"note: {line}", file=sys.stderr)


def _named(class_names: Sequence[str], indices: Sequence[int]) -> str:
    shown = ", ".join(class_names[index] for index in indices[:_MOST_NAMED])
    return shown + (f" and {len(indices) - _MOST_NAMED} more" if len(indices) > _MOST_NAMED else "")
