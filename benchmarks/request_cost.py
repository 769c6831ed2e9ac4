"""The cost of a request to an exported model by the pixels of its image: milliseconds and memory.

python benchmarks/request_cost.py                                           ResNet-101 ASPP-L at one scale
python benchmarks/request_cost.py --backbone=resnet_tiny --head=aspp_s --megapixels=0.25,1,4,16

Square photographs of several sizes, then images of one megapixel that cost more than they should if anything went
wrong: a long thin one, a JPEG of 65,000 empty segments, a GIF whose first frame is larger than its header says. Each is
sent twice as a file to serve_bytes, which returns labels; the second time counts. Memory is that of the process at its
peak, less what it has before the request.
"""

import io
import os
import struct
import tempfile
import time

import numpy as np
from absl import app, flags
from fuzz_outcomes import memory_now, memory_peak
from PIL import Image

_BACKBONE = flags.DEFINE_string("backbone", "resnet101", "Of the network.")
_HEAD = flags.DEFINE_string("head", "aspp_l", "Of the network.")
_SCALES = flags.DEFINE_list("scales", ["1"], "Of the input.")
_MEGAPIXELS = flags.DEFINE_list("megapixels", ["0.25", "1", "4"], "Of the square photographs.")


def photograph(height: int, width: int, kind: str = "JPEG") -> bytes:
    """A file of smooth noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 64 + 2, width // 64 + 2, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(file, kind)
    return file.getvalue()


def lying_gif(side: int) -> bytes:
    """A GIF with a frame of `side` x `side` pixels whose header says 1 x 1."""
    file = photograph(side, side, "GIF")
    return file[:6] + struct.pack("<HH", 1, 1) + file[10:]


def sent(signature, content: bytes) -> tuple[float, float, str]:
    """Milliseconds, megabytes, and the beginning of the refusal, if it is one, of a request."""
    import tensorflow as tf

    for _ in range(2):
        before, began = memory_now(), time.monotonic()
        try:
            signature(image_bytes=tf.constant([content]))
            refusal = ""
        except tf.errors.InvalidArgumentError as error:
            refusal = str(error).split("[")[1][:60] if "[" in str(error) else str(error)[:60]
        seconds, peak = time.monotonic() - began, memory_peak()
    return 1000 * seconds, (peak - before) / 1e6, refusal


def main(_) -> None:
    """Exports a network of random weights and prints a row for each image."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from deeplab_tf import DeepLab, Segmenter, data
    from deeplab_tf.serving import export_saved_model

    info = data.info("voc2012")
    network = DeepLab(_BACKBONE.value, _HEAD.value, info.num_classes, scales=[*map(float, _SCALES.value)])
    segmenter = Segmenter(network, info=info)
    sizes = [round((1e6 * float(size)) ** 0.5) for size in _MEGAPIXELS.value]
    requests = {f"photograph {side} x {side}": photograph(side, side) for side in sizes}
    jpeg = photograph(1000, 1000)
    requests |= {
        "thin, 16 x 62500": photograph(16, 62_500),
        "JPEG of 65,000 segments, 1000 x 1000": jpeg[:2] + b"\xff\xfe\0\2" * 65_000 + jpeg[2:],
        "GIF of 1 x 1, frame 5000 x 5000": lying_gif(5000),
        "no image": b"no image at all" * 10,
    }
    with tempfile.TemporaryDirectory() as folder:
        served = tf.saved_model.load(str(export_saved_model(segmenter, folder, outputs=["labels"])))
        print(f"{_BACKBONE.value} {_HEAD.value}, scales {','.join(_SCALES.value)}")
        for name, content in requests.items():
            milliseconds, megabytes, refusal = sent(served.signatures["serve_bytes"], content)
            print(f"{name:<40}{len(content) / 1e3:>9.0f} kB{milliseconds:>9.0f} ms{megabytes:>8.0f} MB  {refusal}")


if __name__ == "__main__":
    app.run(main)
