"""Segments photographs with a model behind TF Serving, over its REST API.

python examples/serving/rest_client.py --server=localhost:8501 --input=photos --output_dir=out
python examples/serving/rest_client.py --input=photos --classes=exported/1/assets.extra/classes.json --crf

Needs the base install of deeplab_tf: no TensorFlow. Only the mask comes back, as a PNG; with --crf it is the
probabilities, as JSON, which is large, and they are refined here.
"""

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import common
import numpy as np


def request_body(encoded: bytes, probabilities: bool) -> bytes:
    """The JSON of a request for one encoded image: its mask, or its probabilities."""
    signature = common.ALL_OUTPUTS if probabilities else common.MASKS
    body = {"signature_name": signature, "instances": [{"b64": common.base64_text(encoded)}]}
    return json.dumps(body).encode()


def answer(prediction: dict[str, Any], probabilities: bool) -> common.Answer:
    """The answer in a prediction of TF Serving."""
    if not probabilities:
        mask = common.base64_bytes(prediction["mask_png_bytes"]["b64"])
        return common.Answer(labels=common.decoded_mask(mask, prediction["error"]))
    if "probabilities" not in prediction:
        raise common.ServerError("the model serves no probabilities; see --outputs of export_saved_model.py")
    return common.Answer(probabilities=np.array(prediction["probabilities"], np.float32))


def connect(arguments: argparse.Namespace) -> Callable[[bytes, bool], common.Answer]:
    """A function that sends an encoded image and returns the answer."""
    url = f"http://{arguments.server}/v1/models/{arguments.model}:predict"

    def ask(encoded: bytes, probabilities: bool) -> common.Answer:
        request = urllib.request.Request(
            url, request_body(encoded, probabilities), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=arguments.timeout) as response:
                (prediction,) = json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            message = _message(error)
            if error.code == 404:
                where = f"--model={arguments.model}: the server at {arguments.server} has no such model"
                raise common.ServerError(f"{where} ({message})") from None
            raise common.RequestError(f"the server refused it: {error.code}, {message}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            late = isinstance(reason, TimeoutError)
            what = (
                f"no answer within --timeout={arguments.timeout:g} s" if late else f"nothing answers there ({reason})"
            )
            raise common.ServerError(f"--server={arguments.server}: {what}") from None
        except (ValueError, KeyError) as error:
            raise common.ServerError(
                f"--server={arguments.server}: this is not an answer of TF Serving ({error})"
            ) from None
        return answer(prediction, probabilities)

    return ask


def _message(error: urllib.error.HTTPError) -> str:
    """TF Serving's own words, {"error": ...}."""
    body = error.read().decode("utf-8", errors="replace")
    try:
        return common.one_line(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return common.one_line(body)


if __name__ == "__main__":
    common.run(__doc__, "localhost:8501", connect)
