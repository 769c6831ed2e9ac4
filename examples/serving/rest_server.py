"""Serves exported models over the REST protocol of TF Serving, from one process of Python: to try, and to measure.

python examples/serving/rest_server.py --model=deeplab=exported --port=8501

Needs TensorFlow alone. It loads the newest version of each model once, and answers POST /v1/models/<model>:predict with
"instances" (the row format) as TF Serving does; for users beyond your own machine, take TF Serving itself.
"""

import argparse
import base64
import binascii
import contextlib
import http.server
import json
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf


class RefusedError(Exception):
    """The answer to a request that cannot be served: the status of HTTP, and a line."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def load(path: str | pathlib.Path) -> Mapping[str, Any]:
    """The signatures of the newest version in an export folder."""
    path = pathlib.Path(path).expanduser()
    versions = [entry for entry in path.glob("*") if entry.name.isdigit()]
    if not versions:
        raise ValueError(f"{path}: found no version of a SavedModel there; export_saved_model.py writes one")
    return tf.saved_model.load(str(max(versions, key=lambda version: int(version.name)))).signatures


def predict(models: Mapping[str, Mapping[str, Any]], name: str, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The predictions for a request, one for each instance.

    Args:
        models: of each model by name, its signatures.
        name: of the model that is asked for.
        request: {"signature_name", "instances"}; an instance is the value of the one input, alone or by its name.

    Raises:
        RefusedError: there is no such model or signature, or the model refuses the request.
    """
    if name not in models:
        raise RefusedError(404, f"Servable not found for request: Latest({name})")
    signature = request.get("signature_name", "serving_default")
    if signature not in models[name]:
        raise RefusedError(404, f'Serving signature name: "{signature}" not found in signature def')
    function = models[name][signature]
    (spec,) = function.structured_input_signature[1].values()
    try:
        values = [_from_json(instance, spec) for instance in request["instances"]]
        outputs = function(**{spec.name: tf.constant(values, spec.dtype)})
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise RefusedError(400, f"expected 'instances' of the input {spec.name} ({error})") from None
    except tf.errors.OpError as error:
        raise RefusedError(400, error.message) from None
    arrays = {key: value.numpy() for key, value in outputs.items()}
    return [{key: _as_json(key, array[i]) for key, array in arrays.items()} for i in range(len(values))]


def _from_json(instance: Any, spec: tf.TensorSpec) -> Any:
    """The value of an input: of strings the bytes, else nested lists."""
    value = instance[spec.name] if isinstance(instance, dict) and spec.name in instance else instance
    return base64.b64decode(value["b64"], validate=True) if spec.dtype == tf.string else value


def _as_json(name: str, value: Any) -> Any:
    """A value of an output; strings are base64 where the name of the output ends in _bytes."""
    if not isinstance(value, bytes):
        return np.asarray(value).tolist()
    return {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.decode("utf-8")


def make_server(
    models: Mapping[str, Mapping[str, Any]], host: str = "localhost", port: int = 0
) -> http.server.ThreadingHTTPServer:
    """A server of models, by name their signatures; `serve_forever()` runs it. Port 0: any that is free."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def do_POST(self):
            path = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                if not path:
                    raise RefusedError(404, f"Malformed request: POST {self.path}")
                self.answer(200, {"predictions": predict(models, path[1], _parsed(body))})
            except RefusedError as error:
                self.answer(error.status, {"error": str(error)})

        def do_GET(self):
            name = self.path.removeprefix("/v1/models/")
            states = [{"state": "AVAILABLE"}] if name in models else []
            self.answer(200 if states else 404, {"model_version_status": states})

        def answer(self, status: int, content: Mapping[str, Any]) -> None:
            content = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer((host, port), Handler)


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise RefusedError(400, "JSON Value: expected an object")
    return request


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", required=True, metavar="NAME=FOLDER", help="may be given repeatedly"
    )
    parser.add_argument("--host", default="localhost", help="address to listen on (default: localhost)")
    parser.add_argument("--port", default=8501, type=int, help="0: any that is free (default: 8501)")
    arguments = parser.parse_args()
    try:
        models = {name: load(folder) for name, _, folder in (model.partition("=") for model in arguments.model)}
        server = make_server(models, arguments.host, arguments.port)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"serving {', '.join(models)} at {arguments.host}:{server.server_port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
