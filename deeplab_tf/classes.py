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
                f"expected the classes of a data set, 'class_names' and 'palette'; found otherwise ({error!r:.200})"
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


def _entries(text: str) -> tuple[str, ...]:
    """The entries of a table that are separated by commas."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


def _colored(text: str) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """The names and colours of a table of entries "name #rrggbb"."""
    names, colors = zip(*(entry.rsplit(" #", 1) for entry in _entries(text)), strict=True)
    return names, tuple(tuple(bytes.fromhex(color)) for color in colors)


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
# Further colours of colour masks, of what has no label: Cityscapes' own, and the grey that GTA5 gives what is static.
CITYSCAPES_VOID_COLORS = (
    *((0, 0, 0), (20, 20, 20), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180)),
    *((150, 100, 100), (150, 120, 90), (0, 0, 90), (0, 0, 110)),
)

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

# COCO-Stuff: ninety-one numbers of things, which are COCO's and eleven that no picture has, and ninety-one of stuff.
_UNUSED_THINGS = {
    12: "street sign",
    26: "hat",
    29: "shoe",
    30: "eye glasses",
    45: "plate",
    66: "mirror",
    68: "window",
    69: "desk",
    71: "door",
    83: "blender",
    91: "hair brush",
}
_STUFF = """
    banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other,
    ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence,
    floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other,
    grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin,
    net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock,
    roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
    structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other,
    wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""
# Of number 1 to 182; labels count from 0. Of these, 171 occur.
COCO_STUFF = (*((COCO_THINGS | _UNUSED_THINGS)[number] for number in range(1, 92)), *_entries(_STUFF))

# SYNTHIA's numbers of Cityscapes' classes; its others (void, parking slot, road work, lane marking) have no label.
SYNTHIA_IDS = {
    "road": 3,
    "sidewalk": 4,
    "building": 2,
    "wall": 21,
    "fence": 5,
    "pole": 7,
    "traffic light": 15,
    "traffic sign": 9,
    "vegetation": 6,
    "terrain": 16,
    "sky": 1,
    "person": 10,
    "rider": 17,
    "car": 8,
    "truck": 18,
    "bus": 19,
    "train": 20,
    "motorcycle": 12,
    "bicycle": 11,
}

# ADE20K: the 150 classes of the scene parsing benchmark, each by its first name, and its authors' colours.
_ADE20K = """
    wall #787878, building #b47878, sky #06e6e6, floor #503232, tree #04c803, ceiling #787850, road #8c8c8c,
    bed #cc05ff, windowpane #e6e6e6, grass #04fa07, cabinet #e005ff, sidewalk #ebff07, person #96053d, earth #787846,
    door #08ff33, table #ff0652, mountain #8fff8c, plant #ccff04, curtain #ff3307, chair #cc4603, car #0066c8,
    water #3de6fa, painting #ff0633, sofa #0b66ff, shelf #ff0747, house #ff09e0, sea #0907e6, mirror #dcdcdc,
    rug #ff095c, field #7009ff, armchair #08ffd6, seat #07ffe0, fence #ffb806, desk #0aff47, rock #ff290a,
    wardrobe #07ffff, lamp #e0ff08, bathtub #6608ff, railing #ff3d06, cushion #ffc207, base #ff7a08, box #00ff14,
    column #ff0829, signboard #ff0599, chest of drawers #0633ff, counter #eb0cff, sand #a09614, sink #00a3ff,
    skyscraper #8c8c8c, fireplace #fa0a0f, refrigerator #14ff00, grandstand #1fff00, path #ff1f00, stairs #ffe000,
    runway #99ff00, case #0000ff, pool table #ff4700, pillow #00ebff, screen door #00adff, stairway #1f00ff,
    river #0bc8c8, bridge #ff5200, bookcase #00fff5, blind #003dff, coffee table #00ff70, toilet #00ff85,
    flower #ff0000, book #ffa300, hill #ff6600, bench #c2ff00, countertop #008fff, stove #33ff00, palm #0052ff,
    kitchen island #00ff29, computer #00ffad, swivel chair #0a00ff, boat #adff00, bar #00ff99, arcade machine #ff5c00,
    hovel #ff00ff, bus #ff00f5, towel #ff0066, light #ffad00, truck #ff0014, tower #ffb8b8, chandelier #001fff,
    awning #00ff3d, streetlight #0047ff, booth #ff00cc, television receiver #00ffc2, airplane #00ff52,
    dirt track #000aff, apparel #0070ff, pole #3300ff, land #00c2ff, bannister #007aff, escalator #00ffa3,
    ottoman #ff9900, bottle #00ff0a, buffet #ff7000, poster #8fff00, stage #5200ff, van #a3ff00, ship #ffeb00,
    fountain #08b8aa, conveyer belt #8500ff, canopy #00ff5c, washer #b800ff, plaything #ff001f, swimming pool #00b8ff,
    stool #00d6ff, barrel #ff0070, basket #5cff00, waterfall #00e0ff, tent #70e0ff, bag #46b8a0, minibike #a300ff,
    cradle #9900ff, oven #47ff00, ball #ff00a3, food #ffcc00, step #ff008f, tank #00ffeb, trade name #85ff00,
    microwave #ff00eb, pot #f500ff, animal #ff007a, bicycle #fff500, lake #0abed4, dishwasher #d6ff00, screen #00ccff,
    blanket #1400ff, sculpture #ffff00, hood #0099ff, sconce #0029ff, vase #00ffcc, traffic light #2900ff,
    tray #29ff00, ashcan #ad00ff, fan #00f5ff, pier #4700ff, crt screen #7a00ff, plate #00ffb8, monitor #005cff,
    bulletin board #b8ff00, shower #0085ff, radiator #ffd600, glass #19c2c2, clock #66ff00, flag #5c00ff
"""
ADE20K, ADE20K_PALETTE = _colored(_ADE20K)

# Mapillary Vistas 1.2: the 65 classes that are evaluated, with their colours; number 65 is unlabelled.
_MAPILLARY = """
    Bird #a52a2a, Ground Animal #00c000, Curb #c4c4c4, Fence #be9999, Guard Rail #b4a5b4, Barrier #5a7896,
    Wall #66669c, Bike Lane #8040ff, Crosswalk - Plain #8c8cc8, Curb Cut #aaaaaa, Parking #faaaa0,
    Pedestrian Area #606060, Rail Track #e6968c, Road #804080, Service Lane #6e6e6e, Sidewalk #f423e8, Bridge #966464,
    Building #464646, Tunnel #96785a, Person #dc143c, Bicyclist #ff0000, Motorcyclist #ff0064, Other Rider #ff00c8,
    Lane Marking - Crosswalk #c88080, Lane Marking - General #ffffff, Mountain #40aa40, Sand #e6a032, Sky #4682b4,
    Snow #beffff, Terrain #98fb98, Vegetation #6b8e23, Water #00aa1e, Banner #ffff80, Bench #fa001e,
    Bike Rack #648cb4, Billboard #dcdcdc, Catch Basin #dc8080, CCTV Camera #de2828, Fire Hydrant #64aa1e,
    Junction Box #282828, Mailbox #212121, Manhole #6480a0, Phone Booth #8e0000, Pothole #466496,
    Street Light #d2aa64, Pole #999999, Traffic Sign Frame #808080, Utility Pole #000050, Traffic Light #faaa1e,
    Traffic Sign (Back) #c0c0c0, Traffic Sign (Front) #dcdc00, Trash Can #8c8c14, Bicycle #770b20, Boat #9600ff,
    Bus #003c64, Car #00008e, Caravan #00005a, Motorcycle #0000e6, On Rails #005064, Other Vehicle #804040,
    Trailer #00006e, Truck #000046, Wheeled Slow #0000c0, Car Mount #202020, Ego Vehicle #780a0a
"""
MAPILLARY, MAPILLARY_PALETTE = _colored(_MAPILLARY)
