"""Load test of an exported model behind HTTP: latency and images per second with 1 to 16 clients at once.

python benchmarks/serving.py --export_dir=exported --input=photos
python benchmarks/serving.py --export_dir=exported --input=photos --clients=1,4 --signatures=serve_png,serve_bytes

The server is examples/serving/rest_server.py, in a process of its own: it loads the SavedModel and speaks the REST of
TF Serving. Each client sends one photograph a request over a connection that stays open, and takes the next when it has
the answer. Times are from end to end: base64, HTTP, decoding, network, and the answer read and parsed. Clients and
server share the machine.
"""

import base64
import concurrent.futures
import http.client
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from deeplab_tf import pictures

_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder of the export.", required=True)
_INPUT = flags.DEFINE_string("input", None, "Photographs: a folder or a quoted glob.", required=True)
_CLIENTS = flags.DEFINE_list("clients", ["1", "2", "4", "8", "16"], "Numbers of clients, one after the other.")
_SIGNATURES = flags.DEFINE_list("signatures", ["serve_png"], "serve_png, serve_bytes.")
_SECONDS = flags.DEFINE_float("seconds", 20, "Of each measurement.", lower_bound=0.1)

SERVER = pathlib.Path(__file__).resolve().parents[1] / "examples" / "serving" / "rest_server.py"


def start_server(export_dir: str) -> tuple[subprocess.Popen, str, int]:
    """The server's process, its host and its port."""
    command = [sys.executable, str(SERVER), f"--model=deeplab={export_dir}", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()  # "serving deeplab at localhost:40001"
    if process.poll() is not None or not line:
        raise SystemExit(f"error: the server did not start with --export_dir={export_dir}")
    host, _, port = line.split()[-1].partition(":")
    return process, host, int(port)


def request_body(signature: str, encoded: bytes) -> bytes:
    """The JSON of a request for one photograph."""
    instance = {"b64": base64.b64encode(encoded).decode()}
    return json.dumps({"signature_name": signature, "instances": [instance]}).encode()


def client(host: str, port: int, bodies: list[bytes], first: int, until: float) -> list[tuple[float, int]]:
    """Sends one request after another; the seconds of each, and the bytes of its answer."""
    connection, done = http.client.HTTPConnection(host, port, timeout=600), []
    position = first
    while time.monotonic() < until or not done:
        started = time.monotonic()
        connection.request("POST", "/v1/models/deeplab:predict", bodies[position % len(bodies)])
        response = connection.getresponse()
        content = response.read()
        if response.status != 200 or not json.loads(content)["predictions"]:
            raise SystemExit(f"error: the server answered {response.status}: {content[:200]!r}")
        done.append((time.monotonic() - started, len(content)))
        position += 1
    connection.close()
    return done


def measure(host: str, port: int, bodies: list[bytes], clients: int) -> dict[str, float]:
    """Latencies in milliseconds, images per second, and kilobytes of an answer."""
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        until = started + _SECONDS.value
        runs = [pool.submit(client, host, port, bodies, i, until) for i in range(clients)]
        done = [each for run in runs for each in run.result()]
    seconds, sizes = np.array(done).T
    return {
        "p50": 1000 * np.percentile(seconds, 50),
        "p99": 1000 * np.percentile(seconds, 99),
        "rate": len(seconds) / (time.monotonic() - started),
        "kilobytes": sizes.mean() / 1000,
        "requests": len(seconds),
    }


def main(_) -> None:
    """Measures and prints a table in Markdown."""
    photographs = [path.read_bytes() for path in pictures.find_images(_INPUT.value)[:50]]
    process, host, port = start_server(_EXPORT_DIR.value)
    try:
        print("| signature | clients | p50, ms | p99, ms | images/s | answer, kB | requests |\n" + "|---" * 7 + "|")
        for signature in _SIGNATURES.value:
            bodies = [request_body(signature, encoded) for encoded in photographs]
            for body in bodies[:2]:  # the graph is optimised
                client(host, port, [body], 0, 0)
            for clients in map(int, _CLIENTS.value):
                found = measure(host, port, bodies, clients)
                figures = "{p50:.0f} | {p99:.0f} | {rate:.2f} | {kilobytes:.0f} | {requests}".format(**found)
                print(f"| {signature} | {clients} | {figures} |", flush=True)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    app.run(main)
