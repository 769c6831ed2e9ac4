"""Lines about trainings that go wrong, from numbers made up for each; and nothing about those that go well."""

import numpy as np
import pytest

from deeplab_tf.training import diagnosis

NAMES = ("background", "leaf", "fruit")


def confusion(*rows):
    return np.array(rows, np.int64)


FINE = confusion([900, 50, 10], [20, 300, 5], [5, 5, 90])


def test_nothing_is_said_of_a_training_that_goes_well():
    assert not diagnosis.one_class_takes_all(FINE, NAMES)
    assert not diagnosis.never_predicted(FINE, NAMES)
    assert not diagnosis.never_trained([5, 4, 3], NAMES, FINE)
    assert not diagnosis.overfits([3, 2, 1], [0.1, 0.2, 0.3])
    empty = np.zeros((3, 3), np.int64)
    assert not diagnosis.one_class_takes_all(empty, NAMES) and not diagnosis.never_predicted(empty, NAMES)


def test_one_class_takes_everything():
    all_background = confusion([600, 0, 0], [300, 0, 0], [99, 1, 0])
    line = diagnosis.one_class_takes_all(all_background, NAMES, [6, 3, 1])
    assert line.startswith(
        "background takes 99.9% of all pixels (truth: 60.0%); it has 60% of the pixels to learn from"
    )
    assert "--class_weights=balanced" in line
    all_fruit = confusion([0, 0, 600], [0, 0, 300], [0, 0, 100])
    assert "learning rate that is too high, or masks that do not fit" in diagnosis.one_class_takes_all(all_fruit, NAMES)
    mostly_background = confusion([990, 0, 0], [10, 0, 0], [0, 0, 0])  # which is nearly right
    assert not diagnosis.one_class_takes_all(mostly_background, NAMES)
    assert diagnosis.never_predicted(mostly_background, NAMES).startswith("never predicted: leaf (1.0% of the true")


def test_classes_that_never_occur():
    line = diagnosis.never_trained([5, 0, 0], NAMES, FINE)
    assert line.startswith("in no training mask: leaf, fruit (2 of them in the validation masks")
    names = [f"c{n}" for n in range(20)]
    assert "c0, c1, c2, c3, c4 and 15 more" in diagnosis.never_trained([0] * 20, names, np.zeros((20, 20)))


@pytest.mark.parametrize(
    ("losses", "mean_ious", "expected"),
    [
        ([3, 2, 1.5, 1.2, 1.0], [0.3, 0.5, 0.48, 0.46, 0.44], True),
        ([3, 2, 1.5, 1.2], [0.3, 0.5, 0.48, 0.46], False),  # not for long enough
        ([3, 2, 1.5, 1.6, 1.0], [0.3, 0.5, 0.48, 0.46, 0.44], False),  # the loss does not fall
        ([3, 2, 1.5, 1.2, 1.0], [0.3, 0.5, 0.48, 0.46, 0.499], False),  # as good as the best
        ([3, 2, 1.5, 1.2, 1.0], [0.3, 0.5, 0.48, 0.46, np.nan], False),
        ([], [], False),
    ],
)
def test_overfitting(losses, mean_ious, expected):
    assert bool(diagnosis.overfits(losses, mean_ious)) == expected


def test_the_time_that_a_training_takes():
    assert diagnosis.time_needed(0.1, 100, True) == ""
    line = diagnosis.time_needed(5.3, 2_000, True)
    assert line == "2000 updates of 5.3 s take about 3 hours, validations not counted"
    days = diagnosis.time_needed(47, 20_000, True)
    assert "about 11 days" in days and "--backbone=efficientnet_lite0" in days
    assert "efficientnet" not in diagnosis.time_needed(47, 20_000, False)


def test_the_time_that_validations_take(capsys):
    steps = range(1, 101)
    for at in (10, 30, 60):
        to_come = sum(step > at and (step % 30 == 0 or step == 100) for step in steps)
        line = diagnosis.validation_time(600, at, 100, 30)
        assert line.startswith(
            f"a validation takes 10 minutes, the {to_come} to come about {10 * to_come} minutes; --eval_every"
        )
    assert diagnosis.validation_time(600, 100, 100, 30) == diagnosis.validation_time(600, 60, 100, 0) == ""
    assert diagnosis.validation_time(50, 60, 100, 30) == ""
    watch = diagnosis.Watch(NAMES, None, 100, True, 30)
    for at in (30, 60):
        watch.on_loop(at, {"loss/total": 1.0})
        watch.on_validation(FINE, 0.5, 600)
    assert capsys.readouterr().err.count("a validation takes") == 1


def test_a_line_is_told_once_and_again_when_it_has_been_untrue(capsys):
    watch = diagnosis.Watch(NAMES, [9, 9, 9], 2_000, True)
    missed = confusion([900, 50, 0], [20, 300, 0], [50, 50, 0])
    told = []
    for counts in (missed, missed + confusion([7, 0, 0], [0, 0, 0], [0, 0, 0]), FINE, missed):
        watch.on_loop(7, {"loss/total": 1.0})
        watch.on_validation(counts, 0.5)
        told.append(capsys.readouterr().err)
    assert [bool(line) for line in told] == [True, False, False, True] and told[0].startswith(
        "note: never predicted: fr"
    )


def test_the_time_is_told_after_the_first_update_that_compiles_nothing(capsys):
    watch = diagnosis.Watch(NAMES, None, 102, True)
    for step, speed in ((1, 0.01), (2, 0.2), (3, 0.01)):
        watch.on_loop(step, {"loss/total": 1.0, "steps_per_second": speed})
    assert capsys.readouterr().err == "note: 100 updates of 5 s take about 8 minutes, validations not counted\n"
