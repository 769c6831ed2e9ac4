"""Files for benchmarks/fuzz.py: small whole ones of every kind that the project reads, and the code that reads them.

A kind is an object with `starts`, {name: content of a whole file}, and `read(name, content)`, which does with a file of
that name what the project does. It returns where the answer is good, raises `UserError` where the file is refused by
one line, and whatever else it raises is a finding. Weights are zeros: what is not zero in their files is structure.
"""

import base64
import io
import json
import pathlib
import shutil

import numpy as np
from PIL import Image

from deeplab_tf.errors import UserError

SIDES = (33, 41)  # height and width of the pictures, pixels


def require(condition: bool, words: str) -> None:
    """Makes a finding of an answer that is not good."""
    if not condition:
        raise AssertionError(words)


def picture(mode: str = "RGB") -> Image.Image:
    """A smooth picture of some mode, with a shape in it."""
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    channels = [6 * y, 6 * x, 255 * ((y - 16) ** 2 + (x - 20) ** 2 < 100)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photographs() -> dict[str, bytes]:
    """Photographs in every format and mode that is read, small."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(257 * np.asarray(picture("L"), np.uint16))
    frames = {"save_all": True, "append_images": [picture("P"), picture("P").rotate(90)]}
    made = {f"{mode}.png": encoded(picture(mode), "PNG") for mode in ("RGB", "L", "P", "RGBA", "LA", "1")}
    made |= {f"{mode}.jpg": encoded(picture(mode), "JPEG") for mode in ("RGB", "L", "CMYK")}
    made |= {f"{mode}.bmp": encoded(picture(mode), "BMP") for mode in ("RGB", "L", "P", "RGBA")}
    made |= {f"{name}.tif": encoded(picture(), "TIFF", compression=name) for name in ("raw", "tiff_lzw", "packbits")}
    return made | {
        "turned.jpg": encoded(picture(), "JPEG", exif=exif),
        "progressive.jpg": encoded(picture(), "JPEG", progressive=True),
        "turned.png": encoded(picture(), "PNG", exif=exif),
        "deep.png": encoded(deep, "PNG"),
        "deep.tif": encoded(deep, "TIFF"),
        "float.tif": encoded(Image.fromarray(np.asarray(picture("L"), np.float32) / 255), "TIFF"),
        "jpeg.tif": encoded(picture(), "TIFF", compression="jpeg"),
        "animated.gif": encoded(picture("P"), "GIF", **frames),
        "still.gif": encoded(picture("L"), "GIF"),
        "lossless.webp": encoded(picture("RGBA"), "WEBP", lossless=True, exif=exif),
        "lossy.webp": encoded(picture(), "WEBP"),
        "animated.webp": encoded(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)]),
        "plain.ppm": encoded(picture(), "PPM"),
    }


class Images:
    """Photographs: read as predict.py does, and prepared for training."""

    def __init__(self, scratch: pathlib.Path):
        from deeplab_tf.data.builder import prepared_photograph
        from deeplab_tf.data.decoding import decode_image

        self._prepared, self._decode = prepared_photograph, decode_image
        self.starts = photographs()

    def read(self, name: str, content: bytes) -> None:
        """Both readers agree on whether there is a picture, and on its size."""
        from deeplab_tf.pictures import read_photograph

        image = read_photograph(content, name)
        require(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0, "not a picture")
        stored, _, height, width = self._prepared(content, name)
        require(self._decode(stored).shape == (height, width, 3), "prepared with another size")
        require(image.shape[:2] == (height, width), f"read as {image.shape}, prepared as {height} x {width}")


class Masks:
    """Label maps of all kinds, colour tables, lists of classes, and arrays for the dense CRF."""

    def __init__(self, scratch: pathlib.Path):
        from deeplab_tf.crf import DenseCRF

        self._crf = DenseCRF(iterations=1)
        self._crf(np.asarray(picture()), np.full((*SIDES, 3), 1 / 3, np.float32))  # compiles it, where that is new
        self._path = scratch / "map"
        labels = Image.fromarray((np.asarray(picture("L")) // 32).astype(np.uint8))
        indexed = labels.copy()
        indexed.putpalette(bytes(range(256)) * 3)
        colors = Image.fromarray(np.asarray(picture()) // 128 * 255)
        probabilities = np.full((*SIDES, 3), 1 / 3, np.float32)
        arrays = {"array.npy": probabilities, "cams.npy": {0: probabilities[..., 0]}}
        arrays["cams_named.npy"] = {"keys": np.array([0, 7]), "high_res": probabilities[..., :2].transpose(2, 0, 1)}
        self.starts = {
            "grey.png": encoded(labels, "PNG"),
            "palette.png": encoded(indexed, "PNG"),
            "deep.png": encoded(labels.convert("I;16"), "PNG"),
            "grey.tif": encoded(labels, "TIFF"),
            "palette.bmp": encoded(indexed, "BMP"),
            "palette.gif": encoded(indexed, "GIF"),
            "colors.png": encoded(colors, "PNG"),
            "colors.tif": encoded(colors, "TIFF"),
            "table.colors": b"0 0 0 background\n255 0 0 red car\ngrass, 0, 255, 0\n1;2;3;ignore\n# no more\n",
            "names.txt": "background\ncar\ngrün\n".encode(),
            "maps.npz": _saved(np.savez, probabilities=probabilities),
            "packed.npz": _saved(np.savez_compressed, probabilities=probabilities),
            **{name: _saved(np.save, array) for name, array in arrays.items()},
        }

    def read(self, name: str, content: bytes) -> None:
        """Reads it as its name says."""
        from deeplab_tf.crf.map_files import MapReader
        from deeplab_tf.data import masks

        path = self._path.with_name(name)
        path.write_bytes(content)
        if name.endswith(".txt"):
            require(all(masks.read_class_names(path)), "a class without a name")
        elif name.endswith(".colors"):
            table = masks.read_color_table(path)
            require(table.palette.shape == (len(table.class_names), 3), "not a colour for each class")
        elif name.endswith((".npy", ".npz")):
            reader = MapReader(cam_threshold=0.3) if name.startswith("cams") else MapReader(scores=True)
            refined = self._crf(np.asarray(picture()), reader.read(path, SIDES).probabilities)
            require(refined.shape[:2] == SIDES, "a map of another size")
        else:
            colors = {
                code: index
                for index, code in enumerate((0, 0xFF, 0xFF00, 0xFF0000, 0xFFFF, 0xFFFF00, 0xFF00FF, 0xFFFFFF))
            }
            table = masks.ColorTable(tuple("abcdefgh"), colors) if name.startswith("colors") else None
            mask = masks.read_mask(content, name, table)
            masks.check_indices(mask.indices, 8, name)
            again = masks.read_mask(mask.encoded(), name)
            require(np.array_equal(again.indices, mask.indices), "not the same when it is stored")


def _saved(save, *arrays, **named) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


class Weights:
    """Weights of all makers for a resnet_tiny: loaded, or refused with the model as it was."""

    def __init__(self, scratch: pathlib.Path):
        import keras
        import tensorflow as tf
        import torch

        from deeplab_tf import DeepLab, Segmenter, data, weights

        self._tf, self._weights = tf, weights
        self._folder = scratch / "weights"
        shutil.rmtree(self._folder, ignore_errors=True)
        whole = self._folder / "whole"
        whole.mkdir(parents=True)
        self._model = DeepLab("resnet_tiny", "linear", 8, scales=(1.0,), preprocessing="caffe")
        for variable in self._model.variables:
            if "preprocessing" not in variable.path:
                variable.assign(keras.ops.zeros_like(variable))
        self._values = self._model.get_weights()

        weights.save(self._model, whole / "own.weights.h5")
        self._model.save(whole / "own.keras")
        (whole / "released.caffemodel").write_bytes(self._caffemodel())
        state = {name: torch.from_numpy(value.copy()) for name, value in self._torch_state().items()}
        torch.save(state, whole / "zip.pth")
        torch.save({"state_dict": state}, whole / "legacy.pth", _use_new_zipfile_serialization=False)
        self.starts = {path.name: path.read_bytes() for path in whole.iterdir()}

        self._run = self._folder / "run"
        Segmenter(self._model, info=data.info("shapes")).save(self._run)
        (checkpoint,) = (self._run / "checkpoints").glob("*.index")
        self._prefix = checkpoint.with_suffix("")
        parts = {path.name: path for path in self._prefix.parent.glob(f"{self._prefix.name}.*")}
        self._parts = parts | {"segmenter.json": self._run / "segmenter.json"}
        self.starts |= {name: path.read_bytes() for name, path in self._parts.items()}
        reader = tf.train.load_checkpoint(str(self._prefix))
        self._tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        self.starts["object_graph"] = self._tensors["_CHECKPOINTABLE_OBJECT_GRAPH"]

    def _layers(self):
        """(layer, its arrays by kind) of the model."""
        for layer in self._model.network.layers:
            if layer.weights:
                yield layer.name, {variable.name: variable.numpy() for variable in layer.weights}

    def _caffemodel(self) -> bytes:
        from deeplab_tf.weights import caffe

        net = caffe._net_parameter()()

        def add(name: str, kind: str, *arrays) -> None:
            layer = net.layer.add(name=name, type=kind)
            for array in map(np.asarray, arrays):
                blob = layer.blobs.add(data=array.ravel().tolist())
                blob.shape.dim.extend(array.shape)

        for name, of in self._layers():
            if "gamma" in of:
                add(name, "BatchNorm", of["moving_mean"], of["moving_variance"], [1.0])
                add(name.replace("bn", "scale", 1), "Scale", of["gamma"], of["beta"])
            else:
                bias = [of["bias"]] if "bias" in of else []
                add(name, "Convolution", of["kernel"].transpose(3, 2, 0, 1), *bias)
        return net.SerializeToString()

    def _torch_state(self) -> dict[str, np.ndarray]:
        """By deeplab-pytorch's names."""
        from deeplab_tf.weights.source import resnet_units

        modules = {"conv1": "layer1.conv1.conv", "bn_conv1": "layer1.conv1.bn", "fc1": "fc"}
        parts = {"branch1": "shortcut", "branch2a": "reduce", "branch2b": "conv3x3", "branch2c": "increase"}
        for stage, block, unit in resnet_units("resnet_tiny"):
            for branch, part in parts.items():
                module = f"layer{stage}.block{block}.{part}"
                modules |= {f"res{unit}_{branch}": f"{module}.conv", f"bn{unit}_{branch}": f"{module}.bn"}
        norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        kinds = {"kernel": "weight", "bias": "bias"} | norm
        return {
            f"{modules[layer]}.{'bias' if kind == 'bias' else kinds[kind]}": array.transpose(3, 2, 0, 1)
            if kind == "kernel"
            else array
            for layer, arrays in self._layers()
            for kind, array in arrays.items()
        }

    def read(self, name: str, content: bytes) -> None:
        """Describes and loads it; checkpoints are restored as well."""
        source = self._folder / name
        if name in self._parts:
            self._read_of_run(name, content)
            return
        if name == "object_graph":
            source = self._folder / "crafted"
            tensors = self._tensors | {"_CHECKPOINTABLE_OBJECT_GRAPH": np.asarray(content, object)}
            self._tf.raw_ops.SaveV2(
                prefix=str(source),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=[self._tf.constant(value) for value in tensors.values()],
            )
        else:
            source.write_bytes(content)
        self._load(source)

    def _load(self, source: pathlib.Path) -> None:
        try:
            require(isinstance(self._weights.describe(source), dict), "no description")
            self._weights.load(self._model, source)
        except UserError:
            for before, after in zip(self._values, self._model.get_weights(), strict=True):
                require(np.array_equal(before, after), "refused, but the model has changed")
            raise
        values = self._model.get_weights()
        self._model.set_weights(self._values)
        require(all(np.isfinite(value).all() for value in values), "taken, but not finite")

    def _read_of_run(self, name: str, content: bytes) -> None:
        """A part of a run's folder beside the other parts, which are whole."""
        from deeplab_tf import Segmenter

        path = self._parts[name]
        try:
            path.write_bytes(content)
            if name == "segmenter.json":
                segmenter = Segmenter.load(self._run)
                require(segmenter(np.zeros((9, 9, 3), np.uint8)).labels.shape == (9, 9), "not a label for each pixel")
                return
            self._restore()
            self._load(self._prefix)
        finally:
            path.write_bytes(self.starts[name])

    def _restore(self) -> None:
        """As a training and a segmenter do, which pass over what they cannot read."""
        from deeplab_tf import run_folder

        try:
            run_folder.restore_newest(self._tf.train.Checkpoint(model=self._model), [str(self._prefix)])
        finally:
            self._model.set_weights(self._values)


class Annotations:
    """MATLAB files of PASCAL-Context and PASCAL-Person-Part, COCO's instances, labelling tools' files, class maps."""

    def __init__(self, scratch: pathlib.Path):
        import scipy.io

        from deeplab_tf.data.builder import check_example
        from deeplab_tf.data.finding import find_builder

        self._check = check_example
        self._find = find_builder
        self._raw = scratch / "raw"
        for folder in ("annotations", "train2017"):
            (self._raw / folder).mkdir(parents=True, exist_ok=True)
        (self._raw / "train2017/a.jpg").write_bytes(encoded(picture(), "JPEG"))
        coco = find_builder("coco")
        self._coco = coco(data_dir=str(scratch / "data"), config=coco.config_named("all"), raw_dir=str(self._raw))
        labels = (np.asarray(picture("L")) // 32).astype(np.uint16)
        part = {"part_name": "head", "mask": (labels > 3).astype(np.uint8)}
        person = {"class": "person", "mask": (labels > 2).astype(np.uint8), "parts": [part]}
        self._own = scratch / "own"
        shutil.rmtree(self._own, ignore_errors=True)  # of a worker that died
        self._own.mkdir()
        (self._own / "a.jpg").write_bytes(encoded(picture(), "JPEG"))
        instances = json.dumps(self._instances()).encode()
        self.starts = {
            "instances.json": instances,
            "own_coco.json": instances,
            "own_labelme.json": json.dumps(_labelme()).encode(),
            "own_cvat.xml": _CVAT,
            "classes.map": b"# new = old\nvehicle = car, bus\nvoid = sky\nrest = *\n",
            "classes.json.map": b'{"vehicle": ["car", "bus"], "void": ["sky"]}',
        }
        for compressed in (False, True):
            for name, content in (("context", {"LabelMap": labels}), ("parts", {"anno": {"objects": [person]}})):
                file = io.BytesIO()
                scipy.io.savemat(file, content, do_compression=compressed)
                self.starts[f"{name}{'_compressed' if compressed else ''}.mat"] = file.getvalue()

    @staticmethod
    def _instances() -> dict:
        height, width = SIDES
        square = [2.5, 3, 20, 3, 20.25, 25, 2, 25]
        runs = [100, 50, height * width - 150]
        segmentations = [
            [square],
            [square, [1, 1, 9, 1, 9, 9]],
            {"size": [height, width], "counts": runs},
            {"size": [height, width], "counts": _compressed_runs(runs)},
        ]
        annotations = [
            {"id": i, "image_id": 7, "category_id": i + 1, "iscrowd": int(i == 3), "area": 99.5, "segmentation": found}
            for i, found in enumerate(segmentations)
        ]
        images = [{"id": 7, "file_name": "a.jpg", "height": height, "width": width}]
        categories = [{"id": number, "name": f"class {number}"} for number in (1, 2, 3, 4)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def read(self, name: str, content: bytes) -> None:
        """Reads it as the data set's builder does, down to the example that would be written."""
        if name.endswith(".map"):
            self._read_class_map(content)
            return
        if name.startswith("own"):
            self._read_own(name, content)
            return
        if name.endswith(".json"):
            (self._raw / "annotations/instances_train2017.json").write_bytes(content)
            for pair in self._coco.pairs()["train"]:
                example = type(self._coco).read(pair)
                if example is not None:
                    self._check(example, 80 + 1)
            return
        import sys

        data_set, function = ("pascal_context", "_read_label_map") if name[0] == "c" else ("person_part", "_read_parts")
        self._find(data_set)
        read = getattr(sys.modules[f"deeplab_tf_datasets_{data_set}"], function)
        mask = read(content, name, True) if data_set == "pascal_context" else read(content, name)
        require(mask.indices.dtype == np.uint8 and mask.indices.ndim == 2, f"a mask {mask.indices.shape}")

    def _read_class_map(self, content: bytes) -> None:
        from deeplab_tf.data.class_map import read_class_map

        (self._own / "classes").write_bytes(content)
        require(len(read_class_map(self._own / "classes").class_names) > 0, "no classes")

    def _read_own(self, name: str, content: bytes) -> None:
        from deeplab_tf.data.labelling_tools import read_annotations, read_drawn

        path = self._own / name
        path.write_bytes(content)
        try:
            for image in read_annotations(self._own)[0]:
                image = image.classified(lambda label: 1, 0, lambda label: f"{label!r} has no class")
                self._check(read_drawn(image), 2)
        finally:
            path.unlink()


def _labelme() -> dict:
    """A file of LabelMe with a shape of each kind that has corners."""
    points = {"polygon": [[2, 3], [20, 3], [9, 25.5]], "rectangle": [[1, 1], [9, 9]], "circle": [[15, 15], [19, 15]]}
    shapes = [{"label": kind, "shape_type": kind, "points": found} for kind, found in points.items()]
    mask = base64.b64encode(encoded(picture("1"), "PNG")).decode()
    shapes.append({"label": "mask", "shape_type": "mask", "points": [[0, 0], [40, 32]], "mask": mask})
    return {"imagePath": "a.jpg", "imageHeight": SIDES[0], "imageWidth": SIDES[1], "imageData": None, "shapes": shapes}


_CVAT = b"""<?xml version="1.0" encoding="utf-8"?>
<annotations><meta><job><labels><label><name>car</name></label></labels></job></meta>
<image id="0" name="a.jpg" width="41" height="33">
<polygon label="car" points="2.5,3;20,3;9,25.5" z_order="1"></polygon>
<box label="car" xtl="1" ytl="1" xbr="9.5" ybr="9" z_order="0"></box>
<ellipse label="car" cx="20" cy="15" rx="5.5" ry="4" z_order="2"></ellipse>
<mask label="car" rle="3,4,3" left="5" top="6" width="5" height="2" z_order="3"></mask>
</image></annotations>
"""


def _compressed_runs(runs: list[int]) -> str:
    """COCO's compressed run lengths."""
    letters = []
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            letters.append(chr((group | (32 if more else 0)) + 48))
            if not more:
                break
    return "".join(letters)


class Requests:
    """Requests to an exported model: files, and pixels of any size. Good requests between them are answered."""

    MAX_PIXELS = 4096

    def __init__(self, scratch: pathlib.Path):
        import keras
        import tensorflow as tf

        from deeplab_tf import DeepLab, Segmenter, data
        from deeplab_tf.serving import export_saved_model

        self._tf = tf
        keras.utils.set_random_seed(0)
        segmenter = Segmenter(DeepLab("resnet_tiny", "linear", 8, scales=(1.0,)), info=data.info("shapes"))
        exported = export_saved_model(segmenter, scratch / "exported", max_pixels=self.MAX_PIXELS)
        self._served = tf.saved_model.load(str(exported))
        read = {name: content for name, content in photographs().items() if not name.endswith((".tif", ".ppm"))}
        sizes = {"pixels.bin": np.asarray([1, *SIDES], "<u2").tobytes()}
        self.starts = read | sizes | {"pair.png": read["RGB.png"], "pair.jpg": read["turned.jpg"]}
        self._good = read["RGB.png"]
        self._expected = self._labels(self._good)
        self._since_good = 0

    def _labels(self, content: bytes) -> np.ndarray:
        answer = self._served.signatures["serve_bytes"](image_bytes=self._tf.constant([content]))
        return answer["labels"].numpy()

    def read(self, name: str, content: bytes) -> None:
        """Sends it."""
        self._since_good += 1
        if self._since_good == 50:
            self._since_good = 0
            require(np.array_equal(self._labels(self._good), self._expected), "another answer to a good request")
        try:
            if name == "pixels.bin":
                self._send_pixels(content)
            else:
                self._send_alone(content)
                self._send([content, self._good] if name.startswith("pair") else [content])
        except self._tf.errors.InvalidArgumentError as error:
            raise UserError(str(error).split("\n")[0]) from None

    def _send_alone(self, content: bytes) -> None:
        """To serve_png, where a bad file fails alone."""
        answer = self._served.signatures["serve_png"](image_bytes=self._tf.constant([content, self._good]))
        (mask, good), (error, none) = answer["mask_png_bytes"].numpy(), answer["error"].numpy()
        require(bool(mask) != bool(error) and b"\n" not in error, f"found a mask of {len(mask)} bytes and {error!r}")
        require(
            none == b"" and np.array_equal(np.asarray(Image.open(io.BytesIO(good))), self._expected[0]), "not alone"
        )

    def _send(self, files: list[bytes]) -> None:
        answer = self._served.signatures["serve_bytes"](image_bytes=self._tf.constant(files))
        labels, sizes = answer["labels"].numpy(), answer["sizes"].numpy()
        require(labels.shape == (len(files), *sizes.max(axis=0)), "labels of another size")
        for label, (height, width) in zip(labels, sizes, strict=True):
            require(height * width <= self.MAX_PIXELS and label[:height, :width].max() < 8, "not classes")
        require(np.isfinite(answer["probabilities"].numpy()).all(), "probabilities that are not finite")

    def _send_pixels(self, content: bytes) -> None:
        count, height, width = np.frombuffer(content.ljust(6, b"\0")[:6], "<u2").tolist()
        count = min(count, 3)
        if height * width > 1 << 22:  # the client's memory, not the server's
            width = 1
        answer = self._served.signatures["serving_default"](
            images=self._tf.zeros((count, height, width, 3), self._tf.uint8)
        )
        require(answer["labels"].shape == (count, height, width), "labels of another size")


KINDS = {"images": Images, "masks": Masks, "weights": Weights, "annotations": Annotations, "requests": Requests}
