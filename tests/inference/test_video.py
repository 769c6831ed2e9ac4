"""Videos and cameras: small videos that OpenCV writes, read back; a video file plays the camera."""

import json
import os
import pathlib
import signal
import sys
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import Segmenter, pictures
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError
from deeplab_tf.inference import video
from deeplab_tf.inference.frames import Frame, is_video
from deeplab_tf.inference.video import predict_video
from tests.helpers import start_command

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install opencv-python-headless")

RATE, FRAMES = 12.5, 9


def frames_of(path) -> list[np.ndarray]:
    """All frames, RGB."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    return frames


def write_video(path, frames, rate=RATE) -> pathlib.Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, frames[0].shape[1::-1])
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MPEG-4 videos")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return pathlib.Path(path)


@pytest.fixture(scope="module")
def street(photograph, tmp_path_factory) -> pathlib.Path:
    """A pan over a wide picture; sides that are no multiples of anything."""
    wide = photograph(74, 200)
    return write_video(
        tmp_path_factory.mktemp("video") / "street.mp4", [wide[:, 6 * i : 90 + 6 * i] for i in range(FRAMES)]
    )


@pytest.mark.parametrize("crf", [None, DenseCRF(iterations=1)])
def test_every_frame_is_segmented_as_an_image_is(segmenter, street, tmp_path, crf):
    segmenter = Segmenter(segmenter.model, crf, segmenter.info)
    made = predict_video(segmenter, str(street), tmp_path, ["overlays", "masks", "coco"])
    assert (made.frames, made.expected, made.dropped, made.stopped) == (FRAMES, FRAMES, 0, False)
    images, overlays = frames_of(street), frames_of(made.overlay)
    assert made.overlay == tmp_path / "overlays/street.mp4" and len(images) == len(overlays) == FRAMES
    assert cv2.VideoCapture(str(made.overlay)).get(cv2.CAP_PROP_FPS) == pytest.approx(RATE)
    for i, (image, overlay) in enumerate(zip(images, overlays, strict=True)):
        labels = segmenter(image).labels
        folder = "masks" if crf is None else "masks_crf"
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / folder / f"street/{i:06d}.png")), labels)
        expected = pictures.overlay(image, labels, segmenter.info.palette)
        assert np.abs(overlay.astype(int) - expected).mean() < 12  # lossy, but this frame
        assert np.abs(overlay.astype(int) - image).mean() > 30
    read = json.loads((tmp_path / ("coco" if crf is None else "coco_crf") / "street.json").read_text())
    assert [entry["file_name"] for entry in read["images"]] == [f"street/{i:06d}" for i in range(FRAMES)]
    assert not list(tmp_path.rglob("*.part*"))


def test_annotations_are_not_kept_in_memory(segmenter, street, tmp_path, monkeypatch):
    """Of a camera they would be ever more; here 40 frames of 0.25 MB of annotations each."""

    def frames(*arguments, **options):
        for i in range(40):
            annotation = {"category_id": 0, "segmentation": {"size": [1, 1], "counts": str(i % 10) * 250_000}}
            yield Frame(i, 0.0), None, {"file_name": f"{i}", "height": 1, "width": 1, "coco": [annotation]}

    monkeypatch.setattr(video, "segment_stream", frames)
    tracemalloc.start()
    try:
        assert predict_video(segmenter, str(street), tmp_path, ["coco"]).frames == 40
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6
    assert len(json.loads((tmp_path / "coco/street.json").read_text())["annotations"]) == 40


def test_the_limit_ends_it(segmenter, street, tmp_path):
    made = predict_video(segmenter, str(street), tmp_path, limit=4)
    assert made.frames == 4 and made.stopped and len(frames_of(made.overlay)) == 4


def test_a_camera_gives_its_newest_frame_and_the_video_keeps_time(segmenter, street, tmp_path, monkeypatch):
    """A camera of 50 frames a second and a network of 5: most are dropped, the rest are of their time."""
    start = []

    class FakeCamera:
        def __init__(self, source):
            assert source == 3
            self.count = 0

        def isOpened(self):
            return True

        def get(self, _):
            return 50.0

        def read(self):
            start.append(time.monotonic())
            time.sleep(0.02)
            self.count += 1
            return self.count <= 100, np.full((40, 48, 3), min(self.count, 255), np.uint8)

        def release(self):
            pass

    class Slow(Segmenter):
        def batch_without_crf(self, images):
            ages.append((time.monotonic() - start[0]) - 0.02 * int(images[0, 0, 0, 0]))
            assert len(images) == 1
            time.sleep(0.2)
            return super().batch_without_crf(images)

    ages = []
    slow = Slow(segmenter.model, info=segmenter.info)
    frame = np.zeros((1, 40, 48, 3), np.uint8)
    Segmenter.batch_without_crf(slow, frame)[0].labels  # noqa: B018  traced and compiled
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    made = predict_video(slow, "camera:3", tmp_path)
    monkeypatch.undo()
    assert 4 <= made.frames <= 12 and made.dropped == 100 - made.frames and made.expected is None
    assert made.overlay.name.startswith("camera_")
    # 2 seconds at 50 frames a second, more where a busy machine takes longer; but the last result lasts one frame.
    assert 65 <= len(frames_of(made.overlay)) <= 50 * made.seconds + 1
    # Were they queued, the last of them would be more than a second old. A busy machine makes the camera itself late.
    assert ages[-1] - ages[0] < 1


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_a_signal_ends_a_camera_with_a_whole_video(segmenter, photograph, street, tmp_path, signal_number):
    """The command itself, with a long video in the place of a camera."""
    frames = frames_of(street)
    long = write_video(tmp_path / "long.avi", [frames[i % FRAMES] for i in range(20_000)])
    segmenter.save(tmp_path / "run")
    flags = ["--model_dir=run", f"--input=camera:{long}", "--output_dir=out", "--format=overlays,masks"]
    process = start_command("predict.py", *flags, cwd=tmp_path, into=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/masks/*/*.png")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal_number)
    process.join(120)
    output, errors = ((tmp_path / name).read_text() for name in ("output", "errors"))
    assert process.exitcode == 0 and "Traceback" not in errors, errors
    (overlay,) = (tmp_path / "out/overlays").iterdir()
    assert overlay.suffix == ".mp4" and not overlay.name.startswith(".")
    masks = len(list(tmp_path.glob("out/masks/*/*.png")))
    assert f"segmented  {masks} frames" in output and str(overlay.relative_to(tmp_path)) in output
    assert frames_of(overlay)


def test_a_video_that_breaks_off_is_made_as_far_as_it_goes(segmenter, street, tmp_path):
    """An AVI that was cut: its index says more frames than there are."""
    whole = write_video(tmp_path / "whole.avi", frames_of(street) * 4)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    expected = len(frames_of(cut))
    assert 0 < expected < 4 * FRAMES
    made = predict_video(segmenter, str(cut), tmp_path / "out")
    assert made.frames == expected and len(frames_of(made.overlay)) == expected


def test_mistakes_are_said(segmenter, street, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video")
    for source, message in [
        (str(tmp_path / "text.mp4"), "text.mp4 is not a video that OpenCV can decode"),
        (str(tmp_path / "none.mp4"), "found no video"),
        (f"camera:{tmp_path}/none", "cannot open camera:"),
    ]:
        with pytest.raises(UserError, match=message):
            predict_video(segmenter, source, tmp_path / "out")
    same = tmp_path / "overlays" / "street.mp4"
    same.parent.mkdir()
    same.write_bytes(street.read_bytes())
    with pytest.raises(UserError, match="overwritten by its own overlay"):
        predict_video(segmenter, str(same), tmp_path)
    assert same.read_bytes() == street.read_bytes()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="need OpenCV, which is not installed; pip install"):
        predict_video(segmenter, str(street), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_the_old_video_alone(segmenter, street, tmp_path, monkeypatch):
    overlay = predict_video(segmenter, str(street), tmp_path, limit=2).overlay
    before = overlay.read_bytes()

    def failing(*_):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(video.pictures, "overlay", failing)
    with pytest.raises(RuntimeError, match="disk"):
        predict_video(segmenter, str(street), tmp_path)
    assert overlay.read_bytes() == before and os.listdir(overlay.parent) == [overlay.name]


@pytest.mark.parametrize(
    ("source", "expected"), [("a/b.MP4", True), ("camera:0", True), ("a.jpg", False), ("photos/*.png", False)]
)
def test_what_is_a_video(source, expected):
    assert is_video(source) == expected
