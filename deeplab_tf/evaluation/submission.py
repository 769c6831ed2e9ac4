"""Masks as the benchmark servers of PASCAL VOC and Cityscapes want them."""

import pathlib

import numpy as np
from PIL import Image

from deeplab_tf import files
from deeplab_tf.classes import CITYSCAPES, CITYSCAPES_TRAIN_IDS, IGNORE_LABEL, DatasetInfo
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import save_mask

# Trained on everything there is, "comp6"; on the test images.
_VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


class Submission:
    """Writes the masks of a submission, one image at a time.

    VOC 2012: `results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png`, palette images, to be packed from
    `results` on. Cityscapes: `berlin_000000_000019_labelIds.png`, with the numbers of the label maps (7 road ... 33
    bicycle) at full resolution, to be packed as they are.

    Args:
        info: of the data set; the benchmark is the first part of its name.
        folder: for the files.

    Raises:
        UserError: no benchmark takes submissions for this data set, or the classes are not the benchmark's.
    """

    def __init__(self, info: DatasetInfo, folder: str | pathlib.Path):
        self._benchmark = info.name.split("/")[0]
        self._palette = info.palette
        folder = pathlib.Path(folder).expanduser()
        expected = {"voc2012": 21, "cityscapes": len(CITYSCAPES)}.get(self._benchmark)
        if expected is None:
            raise UserError(
                f"--submission_dir: the data set is {info.name}; submissions can be written for voc2012 and cityscapes"
            )
        if info.num_classes != expected:
            raise UserError(
                f"--submission_dir: {info.name} has {expected} classes in its benchmark, found {info.num_classes}"
            )
        self.folder = folder / _VOC_FOLDER if self._benchmark == "voc2012" else folder

    def write(self, filename: str, labels: np.ndarray) -> None:
        """Writes the mask of one image.

        Args:
            filename: of the image.
            labels: uint8 [H, W], classes as in training.
        """
        stem = pathlib.Path(filename).stem
        if self._benchmark == "voc2012":
            save_mask(self.folder / f"{stem}.png", labels, self._palette)
            return
        name = f"{stem.removesuffix('_leftImg8bit')}_labelIds.png"
        with files.written_aside(self.folder / name) as aside:
            Image.fromarray(_CITYSCAPES_IDS[labels]).save(aside)


_CITYSCAPES_IDS = np.zeros(256, np.uint8)
for _number, _index in CITYSCAPES_TRAIN_IDS.items():
    if _index != IGNORE_LABEL:
        _CITYSCAPES_IDS[_index] = _number
