"""The tables of the networks: their blocks, filters and heads, and the names of their layers. Keras is not imported."""

BACKBONES = ("vgg16", "resnet101", "resnet50", "efficientnet_lite0", "resnet_tiny")
OUTPUT_STRIDES = (8, 16, 32)

# VGG-16: filters of the convolutions of each stage.
VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# ResNets: blocks of each stage, and the filters of the first convolution and of each stage's bottlenecks (x 4 at its
# output).
RESNETS = {
    "resnet101": ((3, 4, 23, 3), 64, (64, 128, 256, 512)),
    "resnet50": ((3, 4, 6, 3), 64, (64, 128, 256, 512)),
    "resnet_tiny": ((1, 2, 2, 2), 16, (16, 32, 48, 64)),
}
# EfficientNet-Lite0, of each stage: repeats, side of the depthwise kernel, stride of its first block, expansion and
# filters.
EFFICIENTNET_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

# Heads of VGG-16: side of fc6's kernel, filters of fc6 and fc7, and the rate of each branch, at output stride 8.
VGG_HEADS = {
    "fc_7x7_r4": (7, 4096, (4,)),
    "fc_4x4_r4": (4, 4096, (4,)),
    "fc_4x4_r8": (4, 4096, (8,)),
    "large_fov": (3, 1024, (12,)),
    "aspp_s": (3, 1024, (2, 4, 8, 12)),
    "aspp_l": (3, 1024, (6, 12, 18, 24)),
}
# Heads of the others: side of the classifier's kernel, and the rate of each branch, at output stride 8. "aspp_6_12" is
# what the code of AdaptSegNet and DACS computes: the first two branches of ASPP-L.
RESNET_HEADS = {
    "linear": (1, (1,)),
    "large_fov": (3, (12,)),
    "aspp_s": (3, (2, 4, 8, 12)),
    "aspp_l": (3, (6, 12, 18, 24)),
    "aspp_6_12": (3, (6, 12)),
}


def heads_of(backbone: str) -> tuple[str, ...]:
    """The heads that a backbone can have."""
    return tuple(VGG_HEADS if backbone == "vgg16" else RESNET_HEADS)


def block_names(backbone: str) -> list[str]:
    """Caffe's names of a ResNet's blocks in order: 2a, 2b, 2c, 3a, 3b1, ..., 5c for resnet101."""
    stages = enumerate(RESNETS[backbone][0], start=2)
    return [f"{stage}{block_letter(backbone, stage, i)}" for stage, blocks in stages for i in range(blocks)]


def block_letter(backbone: str, stage: int, i: int) -> str:
    """Of block i: a, b, c, ..., but a, b1, b2, ... in ResNet-101's stages 3 and 4."""
    if backbone == "resnet101" and stage in (3, 4):
        return f"b{i}" if i else "a"
    return "abcdef"[i]


def layer_names(backbone: str, head: str) -> list[str]:
    """The names of the layers with weights of a network, in no particular order."""
    if backbone == "vgg16":
        names = [f"conv{stage}_{i}" for stage, of in enumerate(VGG_STAGES, 1) for i in range(1, len(of) + 1)]
        branches = len(VGG_HEADS[head][2])
        suffixes = [""] if branches == 1 else [f"_{i}" for i in range(1, branches + 1)]
        return names + [f"{layer}{suffix}" for layer in ("fc6", "fc7", "fc8") for suffix in suffixes]
    branches = len(RESNET_HEADS[head][1])
    classifiers = ["fc1"] if branches == 1 else [f"fc1_c{i}" for i in range(branches)]
    if backbone == "efficientnet_lite0":
        expansions = [stage[3] for stage in EFFICIENTNET_STAGES for _ in range(stage[0])]
        units = ["stem"]
        for block, expansion in enumerate(expansions):
            parts = ("expand", "depthwise", "project") if expansion > 1 else ("depthwise", "project")
            units += [f"block{block}_{part}" for part in parts]
        return [f"{unit}_{layer}" for unit in units for layer in ("conv", "bn")] + classifiers
    branches_of = {name: ("branch2a", "branch2b", "branch2c") for name in block_names(backbone)}
    names = [f"{kind}{name}_{branch}" for name, of in branches_of.items() for branch in of for kind in ("res", "bn")]
    firsts = [f"{kind}{name}_branch1" for name in branches_of if name[1:] == "a" for kind in ("res", "bn")]
    return ["conv1", "bn_conv1", *firsts, *names, *classifiers]
