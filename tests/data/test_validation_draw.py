"""The validation images that are drawn: their number, rare classes among them, the same for the same names."""

import numpy as np
import pytest

from deeplab_tf.data.validation_draw import draw_validation, split_named


@pytest.mark.parametrize("seed", range(20))
def test_rare_classes_are_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    classes = {f"p{n}": {0, *(np.flatnonzero(rng.random(6) < 0.5) + 1).tolist()} for n in range(200)}
    for rare, count in ((7, 2), (8, 5)):
        for n in rng.choice(200, count, replace=False):
            classes[f"p{n}"].add(rare)
    val = draw_validation(classes, 0.1, seed)
    assert len(val) == 20 == len(set(val)) and val == sorted(val)
    for side in (set(val), set(classes) - set(val)):
        assert set.union(*(classes[name] for name in side)) == set(range(9))
    assert val == draw_validation(dict(reversed(classes.items())), 0.1, seed) != draw_validation(classes, 0.1, seed + 1)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_the_number_is_the_fraction_and_something_is_left_to_train_on(count, fraction):
    for of_image in (lambda n: {n}, lambda n: {0, 1}, lambda n: ()):
        classes = {f"{n}": of_image(n) for n in range(count)}
        assert len(draw_validation(classes, fraction)) == min(count - 1, max(1, round(fraction * count)))
    assert draw_validation({"a": {1}}, 0.5) == [] == draw_validation(classes, 0.0)


def test_folders_that_name_a_split():
    assert [split_named(path) for path in ("train/a.jpg", "x/Valid/a.jpg", "images/validation/b/c.jpg")] == [
        "train",
        "val",
        "val",
    ]
    assert split_named("train.jpg") is None is split_named("trains/a.jpg")
