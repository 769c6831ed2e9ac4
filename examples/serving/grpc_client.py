"""Segments photographs with a model behind TF Serving, over gRPC.

python examples/serving/grpc_client.py --server=localhost:8500 --input=photos --output_dir=out
python examples/serving/grpc_client.py --input=photos --classes=exported/1/assets.extra/classes.json --crf

Needs the package tensorflow-serving-api for the messages: pip install -e '.[serving]'. Only the mask comes back, as a
PNG; with --crf the probabilities do, and are refined here.
"""

import argparse
from collections.abc import Callable

import common

try:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    raise SystemExit(
        f"error: {error}; the gRPC client needs tensorflow-serving-api: pip install -e '.[serving]'"
    ) from None

# Answers may be of any size; gRPC's own limit is 4 MiB.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def predict_request(model: str, encoded: bytes, probabilities: bool) -> predict_pb2.PredictRequest:
    """The request for one encoded image: its mask, or its probabilities."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = common.ALL_OUTPUTS if probabilities else common.MASKS
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([encoded], tf.string))
    request.output_filter.extend(["probabilities"] if probabilities else ["mask_png_bytes", "error"])
    return request


def answer(response: predict_pb2.PredictResponse) -> common.Answer:
    """The answer in a response about one image."""
    outputs = {name: tf.make_ndarray(tensor)[0] for name, tensor in response.outputs.items()}
    if "mask_png_bytes" in outputs:
        return common.Answer(labels=common.decoded_mask(outputs["mask_png_bytes"], outputs["error"].decode()))
    return common.Answer(probabilities=outputs["probabilities"])


def connect(arguments: argparse.Namespace) -> Callable[[bytes, bool], common.Answer]:
    """A function that sends an encoded image and returns the answer."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(arguments.server, _OPTIONS))

    def ask(encoded: bytes, probabilities: bool) -> common.Answer:
        try:
            return answer(stub.Predict(predict_request(arguments.model, encoded, probabilities), arguments.timeout))
        except grpc.RpcError as error:
            code, message = error.code(), common.one_line(error.details())
        if code == grpc.StatusCode.UNAVAILABLE:
            raise common.ServerError(f"--server={arguments.server}: nothing answers there ({message})")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise common.ServerError(f"--server={arguments.server}: no answer within --timeout={arguments.timeout:g} s")
        if code == grpc.StatusCode.NOT_FOUND:
            raise common.ServerError(f"--model={arguments.model}: the server has no such model ({message})")
        if code == grpc.StatusCode.FAILED_PRECONDITION or "output tensor alias not found" in message:
            wanted = (
                "probabilities; see --outputs of export_saved_model.py" if probabilities else "masks; export it again"
            )
            raise common.ServerError(f"the model serves no {wanted} ({message})")
        raise common.RequestError(f"the server refused it: {code.name}, {message}")

    return ask


if __name__ == "__main__":
    common.run(__doc__, "localhost:8500", connect)
