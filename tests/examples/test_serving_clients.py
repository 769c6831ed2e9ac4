"""The clients of TF Serving as processes, against servers that run the exported SavedModel as TF Serving does.

TF Serving itself is no Python package. The servers here speak its protocols: over gRPC with its own messages, over REST
(examples/serving/rest_server.py) with the JSON that its documentation describes, its rule for binary outputs included.
"""

import concurrent.futures
import importlib.util
import pathlib
import socket
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from deeplab_tf import DeepLab, Segmenter, pictures
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data import info
from deeplab_tf.serving import export_saved_model
from deeplab_tf.serving.warmup import WARMUP_FILE
from tests.helpers import REPOSITORY, photograph, randomise, run_command

grpc = pytest.importorskip("grpc", reason="needs grpcio, which tensorflow-serving-api brings")
pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc  # noqa: E402
from tensorflow_serving.config import model_server_config_pb2  # noqa: E402

pytestmark = pytest.mark.slow  # processes of commands, or many trainings

EXAMPLES = REPOSITORY / "examples" / "serving"
MODELS = {"deeplab": ("labels", "probabilities"), "labels_only": ("labels",)}
TOLERANCE = 5e-5  # as in the tests of the export

_spec = importlib.util.spec_from_file_location("rest_server", EXAMPLES / "rest_server.py")
rest_server_example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rest_server_example)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    keras.utils.set_random_seed(3)
    model = DeepLab("resnet_tiny", "linear", 8, scales=(1.0,), batch_norm="frozen")
    return Segmenter(randomise(model), info=info("shapes"))


@pytest.fixture(scope="module")
def versions(segmenter, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Of each of `MODELS`, the version directory."""
    folder = tmp_path_factory.mktemp("exported")
    return {name: export_saved_model(segmenter, folder / name, outputs=outputs) for name, outputs in MODELS.items()}


@pytest.fixture(scope="module")
def models(versions) -> dict:
    """Of each of `MODELS`, the loaded SavedModel."""
    return {name: tf.saved_model.load(str(version)) for name, version in versions.items()}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> pathlib.Path:
    """A folder of images as users have them, of two sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    for i, (height, width) in enumerate([(48, 64), (70, 53), (48, 64), (48, 64)]):
        picture = Image.fromarray(photograph(height, width, seed=i))
        if i < 2:
            picture.save(folder / f"{i}.png")
        elif i == 2:
            exif = Image.Exif()
            exif[0x0112] = 6  # to be turned by 90 degrees
            picture.save(folder / "turned.jpg", exif=exif)
        else:
            picture.convert("CMYK").save(folder / "cmyk.tif")
    return folder


def upright(path: pathlib.Path) -> np.ndarray:
    image = np.asarray(Image.open(path).convert("RGB"))
    return np.rot90(image, -1) if path.stem == "turned" else image


class Refused(Exception):
    """What TF Serving answers: a status of gRPC and a message."""


def serve(models: dict, name: str, signature: str, inputs: dict, output_filter=()) -> dict[str, np.ndarray]:
    if name not in models:
        raise Refused("NOT_FOUND", f"Servable not found for request: Latest({name})")
    if signature not in models[name].signatures:
        raise Refused("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
    function = models[name].signatures[signature]
    for output in output_filter:
        if output not in function.structured_outputs:
            raise Refused("INVALID_ARGUMENT", f"output tensor alias not found in signature: {output} Outputs expected")
    try:
        outputs = function(**{key: tf.constant(value) for key, value in inputs.items()})
    except tf.errors.InvalidArgumentError as error:
        raise Refused("INVALID_ARGUMENT", error.message) from None
    return {key: value.numpy() for key, value in outputs.items() if not output_filter or key in output_filter}


def predict(models: dict, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
    spec = request.model_spec
    response = predict_pb2.PredictResponse(model_spec=spec)
    signature = spec.signature_name or "serving_default"
    for key, value in serve(models, spec.name, signature, inputs, request.output_filter).items():
        response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
    return response


@pytest.fixture(scope="module")
def grpc_server(models):
    """Address of a server of the PredictionService."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            try:
                return predict(models, request)
            except Refused as refused:
                context.abort(grpc.StatusCode[refused.args[0]], refused.args[1])

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(0).wait()


@pytest.fixture(scope="module")
def rest_server(models):
    """Address of the server of examples/serving."""
    server = rest_server_example.make_server({name: model.signatures for name, model in models.items()})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["grpc", "rest"])
def client(request):
    """A function that runs a client with further arguments; its `server` is the address of its server."""

    def run(*arguments: str, server: str | None = None) -> subprocess.CompletedProcess:
        address = server or request.getfixturevalue(f"{request.param}_server")
        name = f"examples/serving/{request.param}_client.py"
        return run_command(name, f"--server={address}", *arguments, cwd=REPOSITORY)

    return run


@pytest.mark.parametrize("crf", [None, DenseCRF(iterations=2)])
def test_a_client_writes_what_the_segmenter_says(client, segmenter, versions, photographs, tmp_path, crf):
    classes = versions["deeplab"] / "assets.extra" / "classes.json"
    arguments = [f"--input={photographs}", f"--output_dir={tmp_path}", f"--classes={classes}"]
    if crf:
        crf.save(tmp_path / "crf.json")
        arguments.append(f"--crf={tmp_path / 'crf.json'}")
    done = client(*arguments)
    assert done.returncode == 0, done.stderr
    assert "segmented  4 of 4 images" in done.stdout
    seen = set()
    for path in sorted(photographs.iterdir()):
        image = upright(path)
        expected = Segmenter(segmenter.model, crf)(image).labels
        with Image.open(tmp_path / "masks" / f"{path.stem}.png") as mask:
            labels = np.asarray(mask)
            palette = np.array(mask.getpalette()[: 3 * segmenter.info.num_classes]).reshape(-1, 3)
        np.testing.assert_array_equal(palette, segmenter.info.palette)
        assert labels.shape == expected.shape and (labels == expected).mean() >= (0.999 if crf else 1), path
        overlay = np.asarray(Image.open(tmp_path / "overlays" / f"{path.stem}.png"))
        drawn = pictures.overlay(image, labels, segmenter.info.palette)
        assert np.abs(overlay.astype(int) - drawn).max() <= 1
        seen |= set(np.unique(labels).tolist())
    assert len(seen) > 2


def test_an_image_that_is_none_is_named_and_the_server_goes_on(client, photographs, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "0_broken.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    (folder / "1_empty.png").write_bytes(b"")
    (folder / "2.png").write_bytes((photographs / "0.png").read_bytes())
    done = client(f"--input={folder}", f"--output_dir={tmp_path}")
    assert done.returncode == 1 and "segmented  1 of 3 images" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2 and "0_broken.jpg: the server refused it: " in lines[0] and "1_empty.png" in lines[1]
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["2.png"]


def check_one_line(done: subprocess.CompletedProcess, message: str, output_dir: pathlib.Path):
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(lines) == 1 and message in lines[0], (done.args, done.stderr)
    assert "Traceback" not in done.stderr and not output_dir.exists()


def test_what_is_wrong_with_the_server_is_one_line(client, photographs, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        nobody = f"localhost:{free.getsockname()[1]}"
    image = f"--input={photographs / '0.png'}"
    for arguments, server, message in [
        ([image], nobody, f"--server={nobody}: nothing answers there"),
        ([image, "--model=segmenter"], None, "--model=segmenter: the server"),
        ([image, "--model=labels_only", "--crf"], None, "the model serves no probabilities; see --outputs"),
    ]:
        check_one_line(client(*arguments, f"--output_dir={tmp_path / 'out'}", server=server), message, tmp_path / "out")


@pytest.mark.parametrize("client", ["rest"], indirect=True)
def test_what_is_wrong_with_the_arguments_is_one_line(client, photographs, tmp_path):
    image = f"--input={photographs / '0.png'}"
    for arguments, message in [
        ([f"--input={tmp_path}"], "found no image there"),
        ([image, f"--classes={tmp_path / 'none.json'}"], "not the classes.json of an export"),
        ([image, f"--crf={tmp_path / 'none.json'}"], "--crf: "),
    ]:
        check_one_line(client(*arguments, f"--output_dir={tmp_path / 'out'}"), message, tmp_path / "out")


def test_a_client_waits_no_longer_than_it_was_told(client, photographs, tmp_path):
    """Somebody listens and never answers."""
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        silent.listen()
        server = f"localhost:{silent.getsockname()[1]}"
        arguments = [f"--input={photographs / '0.png'}", f"--output_dir={tmp_path}", "--timeout=1"]
        done = client(*arguments, server=server)
    assert done.returncode == 1 and f"error: --server={server}: no" in done.stderr and "Traceback" not in done.stderr


def test_messages_survive_the_wire(models, segmenter, photographs, monkeypatch):
    """Request and response of the gRPC client, serialised and parsed, with the SavedModel between them."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import grpc_client

    image = upright(photographs / "1.png")
    encoded = (photographs / "1.png").read_bytes()
    for probabilities in (False, True):
        request = grpc_client.predict_request("deeplab", encoded, probabilities)
        request = predict_pb2.PredictRequest.FromString(request.SerializeToString())
        assert request.inputs["image_bytes"].string_val[:] == [encoded]
        response = predict(models, request)
        answer = grpc_client.answer(predict_pb2.PredictResponse.FromString(response.SerializeToString()))
        expected = segmenter(image)
        if probabilities:
            np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=TOLERANCE)
            assert answer.labels is None
        else:
            np.testing.assert_array_equal(answer.labels, expected.labels)


def test_warm_up_requests_are_requests_that_the_model_answers(versions, models, segmenter, tmp_path):
    records = list(tf.data.TFRecordDataset(str(versions["deeplab"] / WARMUP_FILE)).as_numpy_iterator())
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    assert {request.model_spec.signature_name for request in requests} == set(models["deeplab"].signatures)
    labels = []
    for request in requests:
        request.model_spec.name = "deeplab"
        outputs = {name: tf.make_ndarray(value) for name, value in predict(models, request).outputs.items()}
        png = outputs.get("mask_png_bytes")
        labels.append(tf.io.decode_png(png[0])[np.newaxis, ..., 0] if "error" in outputs else outputs["labels"])
    assert len(labels) == 3 and labels[0].shape == (1, 513, 513)
    for other in labels[1:]:
        np.testing.assert_array_equal(labels[0], other)
    small = export_saved_model(segmenter, tmp_path, max_pixels=1000)
    (record, *_) = tf.data.TFRecordDataset(str(small / WARMUP_FILE)).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert tf.make_ndarray(request.inputs["images"]).shape == (1, 31, 31, 3)


def test_without_the_messages_there_is_no_warm_up_file(segmenter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    version = export_saved_model(segmenter, tmp_path)
    assert (version / "saved_model.pb").is_file() and not (version / WARMUP_FILE).exists()


def test_the_configuration_is_one_of_tf_serving():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((EXAMPLES / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("deeplab", "/models/deeplab", "tensorflow")
