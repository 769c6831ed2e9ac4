"""The cost of a request to an exported model by the pixels of its image: milliseconds and memory.

python benchmarks/request_cost.py                                           ResNet-101 ASPP-L at one scale
python benchmarks/request_cost.py --backbone=resnet_tiny --head=aspp_s --megapixels=0.25,1,4,16

Square photographs of several sizes, then images of one megapixel that cost more than they should if anything went
wrong: a long thin one, a JPEG of 65,000 empty segments, one of 20,000 scans, a GIF whose first frame is larger than its
header says, an animated WebP of 300 frames, a long thin image beside a high thin one. Each is sent twice as a file to
serve_bytes, which returns labels; the second time counts. Memory is that of the process at its peak, less what it has
before the request.
"""

import io
import os
import re
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


def many_scans(count: int) -> bytes:
    """A progressive JPEG of 1000 x 1000 pixels whose last scan comes again and again."""
    file = io.BytesIO()
    Image.new("L", (1000, 1000), 128).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last, end = content.rindex(b"\xff\xda"), len(content) - 2
    return content[:end] + count * content[last:end] + content[end:]


def animation(frames: int) -> bytes:
    """An animated WebP of 1000 x 1000 pixels."""
    file = io.BytesIO()
    pictures = [Image.new("RGB", (1000, 1000), (i % 256, 7 * i % 256, 0)) for i in range(frames)]
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], method=0)
    return file.getvalue()


def sent(signature, *contents: bytes) -> tuple[float, float, str]:
    """Milliseconds, megabytes, and the beginning of the refusal, if it is one, of a request."""
    import tensorflow as tf

    for _ in range(2):
        before, began = memory_now(), time.monotonic()
        try:
            signature(image_bytes=tf.constant(contents))
            refusal = ""
        except tf.errors.InvalidArgumentError as error:
            words = re.search(r"expected [^\]]*", str(error))
            refusal = " ".join((words[0] if words else str(error)).replace("'", "").split())[:100]
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
    requests = {f"photograph {side} x {side}": [photograph(side, side)] for side in sizes}
    jpeg = photograph(1000, 1000)
    requests |= {
        "thin, 16 x 62500": [photograph(16, 62_500)],
        "JPEG of 65,000 segments, 1000 x 1000": [jpeg[:2] + b"\xff\xfe\0\2" * 65_000 + jpeg[2:]],
        "animated WebP of 300 frames, 1000 x 1000": [animation(300)],
        "JPEG of 20,000 scans, 1000 x 1000": [many_scans(20_000)],
        "GIF of 1 x 1, frame 5000 x 5000": [lying_gif(5000)],
        "16 x 62500 and 62500 x 16": [photograph(16, 62_500), photograph(62_500, 16)],
        "no image": [b"no image at all" * 10],
    }
    with tempfile.TemporaryDirectory() as folder:
        served = tf.saved_model.load(str(export_saved_model(segmenter, folder, outputs=["labels"])))
        print(f"{_BACKBONE.value} {_HEAD.value}, scales {','.join(_SCALES.value)}")
        for name, files in requests.items():
            milliseconds, megabytes, refusal = sent(served.signatures["serve_bytes"], *files)
            size = sum(map(len, files)) / 1e3
            print(f"{name:<42}{size:>7.0f} kB{milliseconds:>9.0f} ms{megabytes:>8.0f} MB  {refusal}", flush=True)


if __name__ == "__main__":
    app.run(main)
