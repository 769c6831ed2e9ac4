"""The recipe: every value is checked, and stands in config.flags as the flags take it."""

import dataclasses
import subprocess
import sys

import pytest

from deeplab_tf.errors import UserError
from deeplab_tf.training import Recipe
from deeplab_tf.training.recipe import fields


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_steps", 0, "--max_steps=0: expected at least 1"),
        ("max_steps", 10**30, "--max_steps=1000000000000000000000000000000: expected at most"),
        ("max_steps", 1.5, "--max_steps=1.5: expected a whole number"),
        ("max_steps", None, "--max_steps=None: expected a value"),
        ("seed", 2**63, "expected at most"),
        ("crop_size", 10**9, "expected at most"),
        ("batch_size", 10**12, "expected at most"),
        ("batch_size", True, "expected a whole number"),
        ("learning_rate", float("nan"), "--learning_rate=nan: expected a finite number"),
        ("learning_rate", "fast", "--learning_rate=fast: expected a finite number"),
        ("scales", (0.5, float("nan")), "expected a finite number"),
        ("scales", (), "expected at least one number"),
        ("scales", (1.0, 1.0), "--scales=1.0,1.0: expected each number once"),
        ("scales", "0.5", "--scales=0.5: expected a sequence of numbers"),
        ("random_scale", (0.0, 1.0), "expected at least 0.05"),
        ("random_scale", (1.5, 0.5), "--random_scale=1.5,0.5: expected a range LOW,HIGH"),
        ("random_scale", (float("nan"), 1), "expected a finite number"),
        ("hard_fraction", 0, "expected at least 1e-06"),
        ("hard_fraction", 7, "expected at most 1"),
        ("dropout", 1.0, "expected at most 0.99"),
        ("backbone", "resnet", "--backbone=resnet: expected one of vgg16, "),
        ("output_stride", 9, "expected one of 8, 16, 32"),
        ("mirror", 1, "--mirror=1: expected true or false"),
        ("accumulation_steps", 3, "--batch_size=10: expected a multiple of --accumulation_steps=3"),
        ("profile_steps", (30, 20), "--profile_steps=30,20: expected the first and the last update"),
        ("profile_steps", (1, 2, 3), "expected the first and the last update"),
        ("tile_size", 129, "--tile_size=129: expected more than twice the overlap of the tiles, --tile_overlap=128"),
        ("fast_layers", "(", "--fast_layers=(: expected a regular expression"),
        ("freeze", "(", "--freeze=(: expected none, backbone or a regular expression"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_flag(name, value, message):
    with pytest.raises(UserError) as error:
        Recipe(**{name: value})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_numbers_are_held_as_tuples():
    recipe = Recipe(scales=[1], random_scale=(1, 2), profile_steps=[3, 4], hard_fraction=1)
    assert recipe.scales == (1.0,) and recipe.random_scale == (1.0, 2.0) and recipe.profile_steps == (3, 4)
    assert recipe == dataclasses.replace(recipe)


def test_flags_of_a_recipe_give_that_recipe():
    recipe = Recipe(backbone="vgg16", scales=(0.5, 1), tile_size=513, mirror=False, profile_steps=(2, 3), freeze="c.*1")
    by_topic = recipe.to_flags()
    assert list(by_topic) == ["data", "model", "training", "inference"]
    text = {name: value for flags in by_topic.values() for name, value in flags.items()}
    assert text["scales"] == "0.5,1.0" and text["mirror"] == "false" and "eval_limit" not in text
    assert Recipe.from_flags(text | {"dataset": "voc2012"}) == recipe
    with pytest.raises(UserError, match="--max_steps: found 'many', expected whole numbers"):
        Recipe.from_flags({"max_steps": "many"})


def test_defaults_choices_and_help():
    for field in fields():
        assert field.help.endswith(".") and field.checked(field.default) == field.default


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "aspp"}, "--head=aspp: expected with --backbone=resnet101 one of linear, large_fov, aspp_s, aspp_l"),
        ({"backbone": "vgg16", "head": "linear"}, "--head=linear: expected with --backbone=vgg16 one of fc_7x7_r4"),
        ({"freeze": "foo"}, "--freeze=foo: expected none, backbone or a regular expression of whole names of layers"),
        ({"freeze": "conv1_1"}, r"--freeze=conv1_1: expected none, .*: conv1, bn_conv1, res2a_branch1 \.\.\. fc1_c3"),
        ({"freeze": "("}, r"--freeze=\(: expected none, backbone or a regular expression \(missing"),
        ({"fast_layers": "foo"}, "--fast_layers=foo: expected a regular expression of whole names of layers"),
    ],
)
def test_a_wrong_head_or_pattern_is_said_at_once(settings, message):
    with pytest.raises(UserError, match=message):
        Recipe(**settings)


def test_it_needs_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from deeplab_tf.training import Recipe; print(Recipe(max_steps=3).max_steps)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "3\n"
