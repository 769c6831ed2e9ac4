"""ADE20K: scenes indoors and outdoors, in the 150 classes of the scene parsing benchmark."""

import functools

from deeplab_tf.classes import ADE20K, IGNORE_LABEL, DatasetInfo
from deeplab_tf.data.archives import required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.download import Archive
from deeplab_tf.data.masks import read_mask
from deeplab_tf.data.raw import FilePair, lookup, read_pair, required_folder

# The files count from 1; 0 is everything else. What is above 150 stays what it is, and is refused.
_LOOKUP = lookup([(0, IGNORE_LABEL), *((number, number - 1) for number in range(1, len(ADE20K) + 1))])


class Builder(SegmentationBuilder, skip_registration=True):
    """Scenes indoors and outdoors, 150 classes."""

    name = "ade20k"
    DOWNLOADS = (
        Archive(
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            "md5:7328b3957e407ddae1d3cbf487f149ef",
            unpack=False,
        ),
    )
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["ade20k"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """The authors' training and validation."""
        raw = required_folder(self.raw_dir, "ade20k", ())
        decode = functools.partial(read_mask, lookup=_LOOKUP)
        return {
            split: required_pairs("ade20k", raw, (f"images/{f}", ".jpg"), (f"annotations/{f}", ".png"), decode=decode)
            for split, f in (("train", "training"), ("val", "validation"))
        }
