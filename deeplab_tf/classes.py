"""The classes of a data set, the colours that show them, and the tables of the known data sets."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from deeplab_tf.errors import UserError

# The index that marks a pixel without a label, in every prepared data set.
IGNORE_LABEL = 255
# Class indices are 8-bit numbers, and one of them is the ignore label.
MAX_CLASSES = 255


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetInfo:
    """Classes of a data set.

    Attributes:
        name: of the data set, with its configuration where it has one: "shapes", "cityscapes/coarse".
        class_names: one name for each class index.
        palette: uint8 [num_classes, 3], the RGB colour of each class.
        ignore_label: the index of pixels without a label.
        splits: number of examples of each split.

    Raises:
        UserError: there are more than 255 classes, or not one colour for each.
    """

    name: str
    class_names: tuple[str, ...]
    palette: np.ndarray
    ignore_label: int = IGNORE_LABEL
    splits: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.num_classes > MAX_CLASSES:
            raise UserError(
                f"{self.name}: found {self.num_classes} classes, expected at most {MAX_CLASSES}: masks have 8 bits a "
                f"pixel, and {IGNORE_LABEL} means 'no label'"
            )
        if np.shape(self.palette) != (self.num_classes, 3):
            raise UserError(
                f"{self.name}: found a palette of shape {list(np.shape(self.palette))}, expected "
                f"[{self.num_classes}, 3]: an RGB colour for each class"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, the background counted where there is one."""
        return len(self.class_names)

    def to_json(self) -> dict[str, Any]:
        """The classes as every file of this project holds them; `from_json` reads them."""
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "palette": np.asarray(self.palette).tolist(),
            "ignore_label": self.ignore_label,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], splits: Mapping[str, int] | None = None) -> Self:
        """Reads what `to_json` gave.

        Args:
            content: may hold more; "name" and "ignore_label" may be missing.
            splits: number of examples of each split, where they are known.

        Raises:
            UserError: the names or colours of the classes are missing, or not what they should be.
        """
        try:
            return cls(
                name=str(content.get("name", "")),
                class_names=tuple(map(str, content["class_names"])),
                palette=np.array(content["palette"], np.uint8).reshape(-1, 3),
                ignore_label=int(content.get("ignore_label", IGNORE_LABEL)),
                splits=dict(splits or {}),
            )
        except UserError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"expected the classes of a data set, 'class_names' and 'palette'; found otherwise ({error!r})"
            ) from error


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

# Name and number, among the 459 classes of PASCAL-Context's label maps, of the 59 that are used.
PASCAL_CONTEXT_IDS = {
    "aeroplane": 2,
    "bag": 9,
    "bed": 18,
    "bedclothes": 19,
    "bench": 22,
    "bicycle": 23,
    "bird": 25,
    "boat": 31,
    "book": 33,
    "bottle": 34,
    "building": 44,
    "bus": 45,
    "cabinet": 46,
    "car": 59,
    "cat": 65,
    "ceiling": 68,
    "chair": 72,
    "cloth": 80,
    "computer": 85,
    "cow": 98,
    "cup": 104,
    "curtain": 105,
    "dog": 113,
    "door": 115,
    "fence": 144,
    "floor": 158,
    "flower": 159,
    "food": 162,
    "grass": 187,
    "ground": 189,
    "horse": 207,
    "keyboard": 220,
    "light": 232,
    "motorbike": 258,
    "mountain": 259,
    "mouse": 260,
    "person": 284,
    "plate": 295,
    "platform": 296,
    "pottedplant": 308,
    "road": 324,
    "rock": 326,
    "sheep": 347,
    "shelves": 349,
    "sidewalk": 354,
    "sign": 355,
    "sky": 360,
    "snow": 366,
    "sofa": 368,
    "table": 397,
    "track": 415,
    "train": 416,
    "tree": 420,
    "truck": 424,
    "tvmonitor": 427,
    "wall": 440,
    "water": 445,
    "window": 454,
    "wood": 458,
}
PASCAL_CONTEXT = ("background", *PASCAL_CONTEXT_IDS)

# The parts of a person in PASCAL-Part's files that make up each of the six.
PERSON_PARTS = {
    "head": ("head", "leye", "reye", "lear", "rear", "lebrow", "rebrow", "nose", "mouth", "hair"),
    "torso": ("torso", "neck"),
    "upper arms": ("luarm", "ruarm"),
    "lower arms": ("llarm", "rlarm", "lhand", "rhand"),
    "upper legs": ("luleg", "ruleg"),
    "lower legs": ("llleg", "rlleg", "lfoot", "rfoot"),
}

# Cityscapes: the number in the label maps, and the colour, of each of the nineteen classes, in their order.
_CITYSCAPES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CITYSCAPES = tuple(_CITYSCAPES)
CITYSCAPES_PALETTE = tuple(color for _, color in _CITYSCAPES.values())
# Class of each number that the label maps hold (0 to 33); the others have no label.
CITYSCAPES_TRAIN_IDS = dict.fromkeys(range(34), IGNORE_LABEL) | {
    number: index for index, (number, _) in enumerate(_CITYSCAPES.values())
}

# COCO: category numbers and names of the eighty things.
COCO_THINGS = {
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    5: "airplane",
    6: "bus",
    7: "train",
    8: "truck",
    9: "boat",
    10: "traffic light",
    11: "fire hydrant",
    13: "stop sign",
    14: "parking meter",
    15: "bench",
    16: "bird",
    17: "cat",
    18: "dog",
    19: "horse",
    20: "sheep",
    21: "cow",
    22: "elephant",
    23: "bear",
    24: "zebra",
    25: "giraffe",
    27: "backpack",
    28: "umbrella",
    31: "handbag",
    32: "tie",
    33: "suitcase",
    34: "frisbee",
    35: "skis",
    36: "snowboard",
    37: "sports ball",
    38: "kite",
    39: "baseball bat",
    40: "baseball glove",
    41: "skateboard",
    42: "surfboard",
    43: "tennis racket",
    44: "bottle",
    46: "wine glass",
    47: "cup",
    48: "fork",
    49: "knife",
    50: "spoon",
    51: "bowl",
    52: "banana",
    53: "apple",
    54: "sandwich",
    55: "orange",
    56: "broccoli",
    57: "carrot",
    58: "hot dog",
    59: "pizza",
    60: "donut",
    61: "cake",
    62: "chair",
    63: "couch",
    64: "potted plant",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    73: "laptop",
    74: "mouse",
    75: "remote",
    76: "keyboard",
    77: "cell phone",
    78: "microwave",
    79: "oven",
    80: "toaster",
    81: "sink",
    82: "refrigerator",
    84: "book",
    85: "clock",
    86: "vase",
    87: "scissors",
    88: "teddy bear",
    89: "hair drier",
    90: "toothbrush",
}
COCO = ("background", *COCO_THINGS.values())
# One name for each category number up to 90; ten numbers were never given to a category.
COCO_IDS = ("background", *(COCO_THINGS.get(number, f"unused {number}") for number in range(1, 91)))
# Index in VOC of the COCO categories that VOC has, six of them by another name.
_COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
VOC_OF_COCO = {
    number: index
    for index, voc_name in enumerate(VOC)
    for number, name in COCO_THINGS.items()
    if name == _COCO_NAMES.get(voc_name, voc_name)
}

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
