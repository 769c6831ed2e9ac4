"""The experiments: every row parses, builds the network of its table, and trains on small data."""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

from deeplab_tf import DeepLab, data, flags, weights
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data.catalogue import PREPARED_VERSION
from deeplab_tf.evaluation import ConfusionMatrix, Evaluation, ImageCounts
from deeplab_tf.flags import FLAGS
from deeplab_tf.training import Recipe, train
from deeplab_tf.training.timing import seconds_per_update
from tests.helpers import REPOSITORY, run_command

EVERYTHING = json.loads((REPOSITORY / "experiments/published.json").read_text())
FIELDS_OF_RESEARCH = {table: rows for table, rows in EVERYTHING.items() if not table.isdecimal()}
PUBLISHED = {table: rows for table, rows in EVERYTHING.items() if table.isdecimal()}  # of the paper
ROWS = [row["row"] for table in PUBLISHED.values() for row in table]
NETWORK = ("backbone", "head", "scales")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def parsed():
    """A function that sets the flags as a command would that is given a row's flagfile."""
    with flagsaver.flagsaver():

        def parse(row: str):
            for name in flags.FIELDS:
                FLAGS[name].unparse()
            flags.parse([f"--flagfile={row if row.endswith('.flags') else f'experiments/{row}.flags'}"], "train.py")
            return FLAGS

        yield parse


def settings(row: str) -> dict[str, str]:
    return reproduce().Row(row, "", {}).settings


def reproduce():
    spec = importlib.util.spec_from_file_location("reproduce", REPOSITORY / "tools/reproduce.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module
    spec.loader.exec_module(module)
    return module


def test_every_row_of_the_tables_has_a_flagfile_and_the_other_way_round():
    assert sorted(ROWS) == sorted(path.stem for path in REPOSITORY.glob("experiments/table*.flags"))
    assert {table: len(rows) for table, rows in PUBLISHED.items()} == {
        "1": 4, "2": 5, "3": 3, "4": 7, "5": 3, "6": 8, "7": 6, "8": 3, "9": 7,
    }  # fmt: skip


@pytest.mark.parametrize("row", [*ROWS, "coco_resnet101"])
def test_a_row_parses_to_what_its_table_says(row, parsed):
    found = parsed(row)
    table = row[5] if row.startswith("table") else "coco"
    dataset = {"6": "pascal_context", "7": "person_part", "coco": "coco/ids"}.get(table, "voc2012")
    dataset = "cityscapes" if table in "89" else dataset
    assert found.dataset == dataset and data.info(dataset).splits[found.val_split] > 0
    splits = {"5": "trainvalaug"} | dict.fromkeys("1234", "trainaug")
    coarse = "+cityscapes/coarse:train_extra" if "coarse" in row else ""
    assert found.train_split == splits.get(table, "train") + coarse
    assert found.model_dir.startswith("runs/") and found.crop_size == 321
    assert found.backbone == ("vgg16" if table in "123" or "vgg16" in row else "resnet101")
    assert found.learning_rate == (1e-3 if found.backbone == "vgg16" else 2.5e-4)
    multi_scale = "msc" in row or row == "table5_resnet101_crf" or table == "coco"
    assert found.scales == ((0.5, 0.75, 1.0) if multi_scale else (1.0,))
    augmented = "aug" in row or row in ("table5_resnet101_crf", "table8_resnet101_crf")
    half = "half" in row or row.startswith("table8_vgg16")
    assert found.random_scale == ((0.5, 1.5) if augmented else (1.0, 1.0))
    assert found.input_scale == (0.5 if half else 1.0)
    assert ("coco_resnet101" in found.initial_weights) == ("msc_coco" in row or row == "table5_resnet101_crf")
    assert found.crf == ("crf" in {**dict.fromkeys(row.split("_")), **published(row)})


@functools.cache
def network(backbone: str, head: str, output_stride: int, scales: tuple) -> DeepLab:
    """Many recipes have the same."""
    return DeepLab(backbone, head, 21, output_stride, scales)


@pytest.mark.parametrize(
    "recipe",
    [
        str(p.relative_to(REPOSITORY))
        for p in sorted([*REPOSITORY.glob("*.flags"), *REPOSITORY.glob("recipes/*.flags")])
        if p.name != "laptop.flags"  # For data of any kind.
    ],
)
def test_the_recipe_of_a_data_set_names_its_splits_and_a_network(recipe, parsed):
    found = parsed(recipe)
    known = data.info(found.dataset)
    for split in (found.train_split, found.val_split):  # "cityscapes:val" is of another data set with the same classes
        other, _, name = split.rpartition(":")
        assert data.info(other or found.dataset).splits[name] > 0
        assert data.info(other or found.dataset).class_names == known.class_names
    assert network(found.backbone, found.head, found.output_stride, found.scales).scales == found.scales


def published(row: str) -> dict:
    return next((entry for table in PUBLISHED.values() for entry in table if entry["row"] == row), {})


@pytest.mark.parametrize("flagfile", sorted(str(p.relative_to(REPOSITORY)) for p in REPOSITORY.rglob("*.flags")))
def test_a_flagfile_says_first_what_it_follows(flagfile):
    assert (REPOSITORY / flagfile).read_text().startswith(("# Follows the paper's text", "# Follows the", "# Ours"))


@pytest.mark.parametrize(
    "flag, values",
    [
        *(("table", (1, 2)), ("data_dir", ("/a", "/b")), ("raw_dir", ("/a", "/b")), ("dry_run", (True, False))),
        ("train_masks", ("/a", "/b")),
    ],
)
def test_two_values_of_a_flag_of_reproduce_have_two_outcomes(flag, values, tmp_path, monkeypatch, capsys):
    """What it runs and prints; `test_every_flag` asks the same of the other commands."""
    module = reproduce()
    FLAGS.mark_as_parsed()
    finished = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(module, "measured_update", lambda recipe, dataset: 1.0)
    monkeypatch.setattr(module.Row, "model_dir", tmp_path)
    of_the_flag = {"table": "wsss"} if flag == "train_masks" else {}
    values_of = {"table": 1, "data_dir": str(tmp_path), "raw_dir": None, "train_masks": None, "dry_run": False}
    for name, value in (values_of | of_the_flag).items():
        monkeypatch.setattr(module.FLAGS[name], "value", value)
    outcomes = []
    for value in values:
        ran = []
        monkeypatch.setattr(module.subprocess, "run", lambda command, ran=ran: ran.append(command) or finished)
        monkeypatch.setattr(module.FLAGS[flag], "value", value)
        module.main()
        outcomes.append((ran, capsys.readouterr().out))
    assert outcomes[0] != outcomes[1] and any(out for _, out in outcomes)


def test_every_figure_says_where_it_comes_from():
    for table, rows in PUBLISHED.items():
        for row in rows:
            kind = row["source"].split(":")[0]
            assert kind in ("text", "derived", "unverified", "none"), row
            assert (kind == "none") == ("network" not in row and "crf" not in row), row
            assert kind != "text" or f"Table {table}" in row["source"] or "Sec. 4" in row["source"], row


OF_FIELDS = [row for rows in FIELDS_OF_RESEARCH.values() for row in rows]


def test_the_fields_of_research_have_a_flagfile_and_a_source_for_each_row():
    assert {table: len(rows) for table, rows in FIELDS_OF_RESEARCH.items()} == {
        "deeplab_pytorch": 3, "wsss": 2, "adaptation": 4,
    }  # fmt: skip
    assert set(FIELDS_OF_RESEARCH) < set(flags.FIELDS["table"].choices)
    for row in OF_FIELDS:
        has_figure = "network" in row or "crf" in row
        assert (row["source"] == "none at hand") == (not has_figure), row
        assert not has_figure or "README" in row["source"] or "arXiv" in row["source"], row


@pytest.mark.parametrize("row", sorted({row["row"] for row in OF_FIELDS}))
def test_a_row_of_a_field_parses_to_what_the_field_does(row, parsed):
    """Its splits exist with equal classes, its start is in the catalogue and of its backbone, its sizes fit."""
    found = parsed(row)
    known = data.info(found.dataset)
    assert known.splits[found.train_split] > 0
    other, _, split = found.val_split.rpartition(":")
    validated = data.info(other or found.dataset)
    assert validated.splits[split] > 0 and validated.class_names == known.class_names
    start = weights.catalogue.get(found.initial_weights)
    assert start.network["backbone"] == found.backbone == "resnet101"
    assert found.learning_rate == 2.5e-4 and found.schedule == "poly" and found.crop_size % 8 == 1
    assert found.model_dir == f"runs/{row}"
    if "source_only" in row or "oracle" in row:
        assert (found.head, found.scales, found.mirror) == ("aspp_6_12", (1.0,), False)
        width, seen = {"gta5": (1914, 1280), "synthia": (1280, 1280), "cityscapes": (2048, 1024)}[found.dataset]
        assert round(width * found.input_scale * found.random_scale[0]) == seen
    else:
        assert found.scales == (0.5, 0.75, 1.0) and found.eval_align_corners is False
        assert bool(found.train_masks) == row.startswith("wsss")
        assert ("imagenet" in found.initial_weights) == row.startswith("wsss")


def test_a_mean_over_named_classes_and_a_fixed_crf(tmp_path, monkeypatch):
    """SYNTHIA's protocol: the mean over 13 of Cityscapes' classes. deeplab-pytorch's CRF is not searched."""
    module = reproduce()
    names = data.info("cityscapes").class_names
    counts = np.zeros((2, 3, 19), np.int64)
    counts[:, 1:] = 8
    counts[:, 0, [names.index(name) for name in ("wall", "road")]] = 8  # IoU 1; 0 for the others
    evaluation = types.SimpleNamespace(image_counts=ImageCounts(names, ("a", "b"), counts), mean_iou={"network": 0.5})
    subsets = (None, "synthia16", "synthia13")
    means = [module.Row("x", "", {}, classes=classes)._mean(evaluation, "network") for classes in subsets]
    assert means == [0.5, pytest.approx(2 / 16), pytest.approx(1 / 13)]

    row = module.Row("deeplab_pytorch_voc", "VOC", {"crf": 77.93}, crf_file="deeplab_pytorch_crf.json")
    monkeypatch.setitem(vars(row), "settings", row.settings | {"model_dir": str(tmp_path)})
    monkeypatch.setattr(module.FLAGS["data_dir"], "value", str(tmp_path))
    FLAGS.mark_as_parsed()
    ran = []
    finished = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(module.subprocess, "run", lambda command: ran.append(command[1]) or finished)
    assert not row.has_crf()
    row.run()
    assert ran == ["train.py", "evaluate.py"] and row.has_crf()
    assert DenseCRF.load(tmp_path / "crf.json").parameters == row.wanted()["crf"]
    DenseCRF().save(tmp_path / "crf.json")
    assert not row.has_crf()


def test_only_tables_1_and_2_have_the_step_policy(parsed):
    """Sec. 4.1.2: "poly" for all experiments reported in the rest of the paper; Sec. 4.1.1's are older."""
    step = {row for row in ROWS if parsed(row).schedule == "step"}
    older = {row["row"] for row in PUBLISHED["1"]} | {"table2_step_30_6k", "table5_vgg16_large_fov_crf"}
    assert step == older


def test_table_2_varies_policy_batch_and_length(parsed):
    found = []
    for row in PUBLISHED["2"]:
        values = parsed(row["row"])
        found.append((values.schedule, values.batch_size, values.max_steps, values.head))
    assert found == [
        ("step", 30, 6_000, "large_fov"),
        ("poly", 30, 6_000, "large_fov"),
        ("poly", 30, 10_000, "large_fov"),
        ("poly", 10, 10_000, "large_fov"),
        ("poly", 10, 20_000, "large_fov"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("row", [row["row"] for row in PUBLISHED["1"]])
def test_parameters_are_those_of_table_1(row, parsed):
    found = parsed(row)
    model = DeepLab(found.backbone, found.head, data.info(found.dataset).num_classes, scales=(1.0,))
    assert round(model.network.count_params() / 1e6, 1) == published(row)["parameters_millions"]


@pytest.fixture(scope="module")
def small_records(tmp_path_factory):
    """Records of a few small pictures in the classes 0 to 6, as every split."""
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    bytes_feature = lambda value: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))  # noqa: E731
    with tf.io.TFRecordWriter(str(folder / "train-00000-of-00001.tfrecord")) as writer:
        for i in range(2):
            image = rng.integers(0, 256, (65, 80, 3), dtype=np.uint8)
            label = rng.integers(0, 7, (65, 80, 1), dtype=np.uint8)
            features = {
                "image/encoded": bytes_feature(tf.io.encode_png(image).numpy()),
                "image/filename": bytes_feature(f"{i}.png".encode()),
                "image/segmentation/class/encoded": bytes_feature(tf.io.encode_png(label).numpy()),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    for split in ("trainaug", "trainvalaug", "val"):
        shutil.copy(folder / "train-00000-of-00001.tfrecord", folder / f"{split}-00000-of-00001.tfrecord")
    return folder


@pytest.fixture
def calm_networks(monkeypatch):
    """In place of ImageNet weights: networks whose activations are as small, so that the rows' learning rates fit."""

    def calm(*args, **kwargs):
        model = DeepLab(*args, **kwargs)
        for weight in model.network.weights:
            if weight.path.startswith(("conv1/kernel", "conv1_1/kernel")):
                weight.assign(weight / 100)
            elif "branch2c" in weight.path and weight.path.endswith("gamma"):
                weight.assign(weight / 10)
        return model

    monkeypatch.setattr("deeplab_tf.training.assembly.DeepLab", calm)


# Rows of equal networks train the same way on small data: one of each, that of the most classes.
GROUPS = {}
for _row in ROWS:
    with pytest.MonkeyPatch.context() as _patch:
        _patch.chdir(REPOSITORY)
        _settings = settings(_row)
    GROUPS[tuple(_settings[name] for name in NETWORK)] = _row


def prepared(records, dataset: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The small records as a prepared data set with the classes of another."""
    directory = data_dir / dataset / PREPARED_VERSION
    shutil.copytree(records, directory)
    splits = [{"name": name, "shardLengths": ["2"]} for name in ("train", "trainaug", "trainvalaug", "val")]
    (directory / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    (directory / "metadata.json").write_text(json.dumps(data.info(dataset).to_json() | {"unions": {}}))
    return directory


IN_LITTLE_TIME = ("table9_vgg16_full", "table9_resnet101")  # The others run by -m full_size.


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow if row in IN_LITTLE_TIME else pytest.mark.full_size)
        for row in GROUPS.values()
    ],
)
def test_two_steps_on_small_data(row, small_records, calm_networks, tmp_path):
    of_row = settings(row)
    recipe = dataclasses.replace(
        Recipe.from_flags(of_row | {"train_split": of_row["train_split"].split("+")[0]}),
        initial_weights=None, crop_size=65, batch_size=1, max_steps=2, checkpoint_every=1000, eval_limit=1,
    )  # fmt: skip
    tf.config.run_functions_eagerly(True)  # two steps take less time than tracing them
    try:
        directory = prepared(small_records, of_row["dataset"], tmp_path / "data")
        result = train(tmp_path / "run", directory, recipe, strategy=tf.distribute.get_strategy())
    finally:
        tf.config.run_functions_eagerly(False)
    assert result.steps == 2
    assert 0 <= result.validation["mean_iou"] <= 1
    described = json.loads((tmp_path / "run/segmenter.json").read_text())["model"]
    assert [described[name] for name in ("backbone", "head", "scales")] == [
        recipe.backbone, recipe.head, list(recipe.scales)
    ]  # fmt: skip
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_what_is_missing_is_said(tmp_path):
    result = run_command("tools/reproduce.py", f"--data_dir={tmp_path}", "--table=10", cwd=tmp_path)
    assert result.returncode == 1 and "--table=10: expected one of 1, 2, 3" in result.stderr


def test_a_measured_row_stands_beside_the_published_one(tmp_path, monkeypatch):
    module = reproduce()
    row = module.Row("table1_3x3_r12", "LargeFOV", {"network": 62.25, "crf": 67.64})
    monkeypatch.setitem(vars(row), "settings", row.settings | {"model_dir": str(tmp_path)})
    monkeypatch.setattr(module.FLAGS["data_dir"], "value", str(tmp_path))
    FLAGS.mark_as_parsed()
    assert row.measured() is None and "to be trained" in module.table([row])
    checkpoint = tf.train.Checkpoint(x=tf.Variable(0.0))
    tf.train.CheckpointManager(checkpoint, str(tmp_path / "checkpoints"), 1).save(6000)
    assert "to be evaluated" in module.table([row])
    evaluation = planted(row, tmp_path, images=1449)
    assert row.measured() == {"network": pytest.approx(100 * evaluation.network.mean_iou), "crf": pytest.approx(50.0)}
    figures = f"{100 * evaluation.network.mean_iou:.2f}"
    assert module.table([row]).splitlines()[1].split() == ["LargeFOV", "62.25", "67.64", figures, "50.00"]


def test_a_row_of_a_server_ends_with_masks_and_doubts_are_marked(tmp_path, monkeypatch):
    module = reproduce()
    row = module.Row("table5_vgg16_aspp_l_crf", "ASPP-L", {"crf": 72.6}, "text: Sec. 4.1.2; unverified", "test")
    monkeypatch.setitem(vars(row), "settings", row.settings | {"model_dir": str(tmp_path)})
    monkeypatch.setattr(module.FLAGS["data_dir"], "value", str(tmp_path))
    FLAGS.mark_as_parsed()
    ran = []
    finished = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(module.subprocess, "run", lambda command: ran.append(command[1:]) or finished)
    row.run()
    assert [command[0] for command in ran] == ["train.py", "tools/search_crf.py", "evaluate.py"]
    assert {"--val_split=test", f"--submission_dir={tmp_path}/submission"} <= set(ran[-1])
    line = module.table([row]).splitlines()[1]
    assert "72.60?" in line and "to be trained" in line
    checkpoint = tf.train.Checkpoint(x=tf.Variable(0.0))
    tf.train.CheckpointManager(checkpoint, str(tmp_path / "checkpoints"), 1).save(20_000)
    DenseCRF().save(tmp_path / "crf.json", {"checkpoint": "ckpt-20000"})
    assert row.has_crf()
    planted(row, tmp_path, images=1456)
    for name in ("evaluation.json", "evaluation_images.npz"):
        (tmp_path / name).rename(tmp_path / name.replace("evaluation", "evaluation_test"))
    ran.clear()
    row.run()
    assert not ran and f"masks for the server: {tmp_path}/submission" in module.table([row])


@pytest.mark.slow
def test_the_time_of_an_update_is_that_of_the_trainers(tmp_path):
    recipe = Recipe(backbone="resnet_tiny", head="linear", scales=(1.0,), crop_size=65, batch_size=2)
    assert 0 < seconds_per_update(recipe, 8) < 60


def planted(row, folder, images=1449, **changes):
    """Writes an evaluation of a row to a folder, made as the row asks for, but for some changes."""
    rng = np.random.default_rng(0)
    counts = {stage: np.zeros((images, 3, 2), np.int64) for stage in ("network", "crf")}
    counts["network"][:, 1] = counts["network"][:, 2] = counts["network"][:, 0] + rng.integers(1, 9, (images, 2))
    counts["network"][:, 0] = counts["network"][:, 1]
    counts["crf"][:, 0], counts["crf"][:, 1], counts["crf"][:, 2] = 2, 3, 3
    made_with = row.wanted() | changes
    if made_with["crf"] is None:
        counts["crf"] = None
    matrices = {}
    for stage, of_stage in counts.items():
        if of_stage is None:
            matrices[stage] = None
            continue
        right, true, found = of_stage.sum(axis=0)
        matrices[stage] = ConfusionMatrix(np.array([[right[0], true[0] - right[0]], [found[0] - right[0], right[1]]]))
    names = ("a", "b")
    image_counts = ImageCounts(names, tuple(map(str, range(images))), **counts)
    evaluation = Evaluation(
        names, **matrices, images=images, seconds=1.0, image_counts=image_counts, made_with=made_with
    )
    image_counts.save(folder / "evaluation_images.npz")
    evaluation.save(folder / "evaluation.json")
    return evaluation


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": 10},
        {"split": "trainaug"},
        {"dataset": "voc2012_subset"},
        {"limit": 1449},
        {"checkpoint": "ckpt-5500"},
        {"scales": [0.5, 1.0]},
        {"input_scale": 0.5},
        {"pad_to": 513},
        {"mirror": True},
        {"tile_size": 513, "tile_overlap": 128},
        {"crf": None},
        {"crf": {"bilateral_weight": 4.0}},
    ],
    ids=str,
)
def test_a_measurement_made_another_way_is_refused(wrong, tmp_path, monkeypatch):
    module = reproduce()
    row = module.Row("table1_3x3_r12", "LargeFOV", {"network": 62.25, "crf": 67.64})
    monkeypatch.setitem(vars(row), "settings", row.settings | {"model_dir": str(tmp_path)})
    monkeypatch.setattr(module.FLAGS["data_dir"], "value", str(tmp_path))
    FLAGS.mark_as_parsed()
    checkpoint = tf.train.Checkpoint(x=tf.Variable(0.0))
    tf.train.CheckpointManager(checkpoint, str(tmp_path / "checkpoints"), 1).save(6000)
    planted(row, tmp_path)
    assert row.measured() is not None
    planted(row, tmp_path, **wrong)
    assert row.measured() is None and "to be evaluated" in module.table([row])
