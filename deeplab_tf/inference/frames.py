"""Sources of frames: video files and cameras, through OpenCV."""

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deeplab_tf.errors import UserError

VIDEO_SUFFIXES = frozenset({".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})
CAMERA = "camera:"

# Frames per second of a camera or a file that does not tell.
_USUAL_RATE = 30.0
# A camera that gives no picture this many times in a row is gone.
_MOST_FAILURES = 30


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame without its pixels.

    Attributes:
        index: its number, from 0.
        seconds: since the first frame.
    """

    index: int
    seconds: float


def is_video(source: str) -> bool:
    """Whether an input is for `predict_video`: a video file by its suffix, or `camera:`."""
    return source.startswith(CAMERA) or pathlib.Path(source).suffix.lower() in VIDEO_SUFFIXES


def opencv() -> Any:
    """OpenCV, with its own messages off: what is wrong with a file is said in one line here.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise UserError(
            "videos and cameras need OpenCV, which is not installed; pip install 'deeplab_tf[video]', or "
            "opencv-python-headless"
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def open_capture(source: str) -> Any:
    """OpenCV's capture of a file, or of `camera:` and a number or an address.

    Raises:
        UserError: it cannot be opened.
    """
    cv2 = opencv()
    if source.startswith(CAMERA):
        camera = source.removeprefix(CAMERA)
        capture = cv2.VideoCapture(int(camera) if camera.isdecimal() else camera)
        if not capture.isOpened():
            raise UserError(
                f"--input: cannot open {source}; expected camera:0 for the first camera of this machine, or camera: "
                "and an address such as rtsp://..."
            )
        return capture
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"--input: found no video {source!r}")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(f"--input: {source} is not a video that OpenCV can decode")
    return capture


def frame_rate(capture: Any) -> float:
    """Frames per second."""
    rate = capture.get(opencv().CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else _USUAL_RATE


def take(frames: Iterator, limit: int | None) -> Iterator:
    """The first `limit` items, without asking for one more."""
    with contextlib.closing(frames):
        for count, frame in enumerate(frames, start=1):
            yield frame
            if count == limit:
                return


def frames_of_file(capture: Any, stop: Callable[[], bool]) -> Iterator[tuple[Frame, np.ndarray]]:
    """The frames of a file with their pixels, uint8 [H, W, 3] RGB, until `stop()`."""
    cv2, rate = opencv(), frame_rate(capture)
    try:
        index = 0
        while not stop():
            found, frame = capture.read()
            if not found:
                return
            yield Frame(index, index / rate), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            index += 1
    finally:
        capture.release()


class Camera:
    """Reads a camera on a thread and keeps only the newest frame, so that none waits in a buffer.

    Args:
        capture: of OpenCV.

    Attributes:
        dropped: number of frames that were replaced by the next one before they were taken.
    """

    def __init__(self, capture: Any):
        self._capture = capture
        self._new = threading.Condition()
        self._newest: tuple[float, np.ndarray] | None = None
        self._closed = False
        self._ended = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def newest(self, stop: Callable[[], bool]) -> Iterator[tuple[Frame, np.ndarray]]:
        """The frame that is the newest at the time of asking, never one twice, until the camera ends or `stop()`.

        Yields:
            the frame and its pixels, uint8 [H, W, 3] RGB.
        """
        cv2, index, start = opencv(), 0, None
        while not stop():
            with self._new:
                if not self._new.wait_for(lambda: self._newest is not None or self._ended, timeout=0.1):
                    continue  # to look for a stop
                if self._newest is None:
                    return
                (seconds, frame), self._newest = self._newest, None
            start = seconds if start is None else start
            yield Frame(index, seconds - start), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            index += 1

    def close(self) -> None:
        """Releases the camera."""
        self._closed = True
        self._thread.join(timeout=10)

    def _read(self) -> None:
        failures = 0
        while not self._closed and failures < _MOST_FAILURES:
            found, frame = self._capture.read()
            if not found:
                failures += 1
                time.sleep(0.01)
                continue
            failures = 0
            with self._new:
                self.dropped += self._newest is not None
                self._newest = (time.monotonic(), frame)
                self._new.notify()
        self._capture.release()
        with self._new:
            self._ended = True
            self._new.notify()
