"""Prediction on videos and cameras: an overlay video, and the other formats frame by frame. Needs OpenCV."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Collection, Iterator

import numpy as np
import tqdm

from deeplab_tf import files, pictures
from deeplab_tf.counts import CRF, NETWORK
from deeplab_tf.errors import UserError
from deeplab_tf.inference import coco, prediction_files
from deeplab_tf.inference.frames import CAMERA, Camera, Frame, frame_rate, frames_of_file, open_capture, opencv, take
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.inference.stream import segment_stream
from deeplab_tf.stopping import StopRequest


@dataclasses.dataclass(frozen=True)
class VideoPredictions:
    """Result of `predict_video`.

    Attributes:
        overlay: the overlay video; None where it was not asked for.
        frames: number of frames segmented.
        dropped: frames of a camera that came while the network was busy.
        expected: number of frames that the file says it has; None for a camera, or where it does not say.
        seconds: that it took.
        stopped: whether Ctrl-C, SIGTERM or the limit ended it.
    """

    overlay: pathlib.Path | None
    frames: int
    dropped: int
    expected: int | None
    seconds: float
    stopped: bool


def predict_video(
    segmenter: Segmenter,
    source: str,
    output_dir: str | pathlib.Path,
    formats: Collection[str] = ("overlays",),
    *,
    limit: int | None = None,
) -> VideoPredictions:
    """Segments the frames of a video file, or what a camera sees until it is stopped.

    All frames of a file are segmented, in batches where that pays. Of a camera the newest frame is, as fast as the
    network goes; the others are dropped, and the overlay video shows each result until the next one, so that it plays
    in real time. Ctrl-C or SIGTERM ends it after the frames under way, with whole files; a second Ctrl-C at once.

    Args:
        segmenter: with `info`; its CRF, where it has one, refines every frame.
        source: path of a video file; or `camera:0`, `camera:1` ..., or `camera:rtsp://...`, what OpenCV opens.
        output_dir: gets `overlays/<name>.mp4`, the frames with the coloured final labels laid over them, without sound;
            and for the other formats the folders and files of `predict`, with a folder `<name>` in each, where frames
            are numbered from 000000. `<name>` is that of the file, or `camera_<date>_<time>`.
        formats: as for `predict`.
        limit: number of frames to segment at most.

    Raises:
        UserError: OpenCV is missing, the source cannot be opened or has no frame, the video cannot be written.
    """
    prediction_files.check_formats(formats)
    started, output_dir = time.monotonic(), pathlib.Path(output_dir).expanduser()
    live = source.startswith(CAMERA)
    name = time.strftime("camera_%Y-%m-%d_%H.%M.%S") if live else pathlib.Path(source).stem
    capture = open_capture(source)
    count = 0 if live else int(capture.get(opencv().CAP_PROP_FRAME_COUNT))
    expected = count if count > 0 else None
    overlay_path = output_dir / "overlays" / f"{name}.mp4" if "overlays" in formats else None
    if overlay_path and not live and overlay_path.exists() and overlay_path.samefile(pathlib.Path(source).expanduser()):
        raise UserError(f"--input: {source} would be overwritten by its own overlay; give another --output_dir")
    request = StopRequest()
    frame_formats = [form for form in formats if form != "overlays"]

    def finish(frame: Frame, image: np.ndarray, results: dict[str, Segmentation]) -> tuple:
        path = f"{name}/{frame.index:06d}"
        annotations = prediction_files.write(output_dir, path, image, results, frame_formats, segmenter.info)
        record = {"file_name": path, "height": image.shape[0], "width": image.shape[1], **annotations}
        final = results.get(CRF, results[NETWORK])
        picture = overlay_path and pictures.overlay(image, final.labels, segmenter.info.palette)
        return frame, picture, record

    stages = [NETWORK] if segmenter.crf is None else [NETWORK, CRF]
    coco_folders = [prediction_files.folder("coco", stage) for stage in stages] if "coco" in formats else []
    frames = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(request.listening())
        stop = lambda: bool(request.signal_number())  # noqa: E731
        rate = frame_rate(capture)
        camera = stack.enter_context(contextlib.closing(Camera(capture))) if live else None
        images = take(camera.newest(stop) if live else frames_of_file(capture, stop), limit)
        total = min(filter(None, (expected, limit)), default=None)
        progress = stack.enter_context(tqdm.tqdm(total=total, desc=name, unit="frame", dynamic_ncols=True, leave=False))
        options = {"batch_size": lambda height, width: 1} if live else {}
        segmented = stack.enter_context(
            contextlib.closing(segment_stream(segmenter, images, finish, live=live, **options))
        )
        write = stack.enter_context(_overlay_video(overlay_path, rate, live)) if overlay_path else None
        adding = [
            stack.enter_context(coco.written(output_dir / folder / f"{name}.json", folder, segmenter.info))
            for folder in coco_folders
        ]
        for frame, picture, record in segmented:
            if write:
                write(frame, picture)
            for add in adding:
                add(record)
            frames += 1
            progress.update()
        if not frames and stop():
            raise KeyboardInterrupt
        if not frames:
            raise UserError(f"--input: {source} gave no frame; expected a video that OpenCV can decode, or a camera")
    dropped, stopped = camera.dropped if live else 0, stop() or frames == limit
    return VideoPredictions(overlay_path, frames, dropped, expected, time.monotonic() - started, stopped)


@contextlib.contextmanager
def _overlay_video(path: pathlib.Path, rate: float, live: bool) -> Iterator[Callable[[Frame, np.ndarray], None]]:
    """Yields what writes a frame, uint8 [H, W, 3] RGB, to an MP4 file; the file is there when the block ends.

    Live, a frame is held until the time of the next one.
    """
    cv2 = opencv()
    video, size, last, written = None, None, None, 0
    with files.written_aside(path) as aside:

        def write(frame: Frame, picture: np.ndarray) -> None:
            nonlocal video, size, last, written
            if video is None:
                size = picture.shape[1::-1]
                video = cv2.VideoWriter(str(aside), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not video.isOpened():
                    raise UserError(f"{path}: this OpenCV cannot write MPEG-4 videos of {size[0]} x {size[1]} pixels")
            if live:
                for _ in range(round(frame.seconds * rate) - written):
                    video.write(last)
                    written += 1
                if written > round(frame.seconds * rate):
                    return  # a camera faster than it says
            last = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), size)  # some streams change their size
            video.write(last)
            written += 1

        try:
            yield write
        finally:
            if video is not None:
                video.release()
