"""The classes of the known data sets and the colours that show them."""

import numpy as np

# The index that marks a pixel without a label, in every prepared data set.
IGNORE_LABEL = 255


def voc_palette(num_classes: int) -> np.ndarray:
    """PASCAL VOC's colours, for any number of classes up to 256.

    Bit k of the index, three by three, becomes bit 7-k of red, green and blue, so that near indices differ strongly.

    Returns:
        uint8 [num_classes, 3], RGB.
    """
    index = np.arange(num_classes)
    palette = np.zeros((num_classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette


SHAPES = ("background", "ball", "box", "star", "ring", "kite", "tree", "table")

VOC = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

CAMVID = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
# The colours that SegNet's authors gave these eleven classes.
CAMVID_PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
