"""Installs deeplab_tf.  Tool settings (ruff, pytest) are in pyproject.toml."""

import pathlib

import setuptools

# Reading a prepared data set and training: tensorflow-datasets and the Model Garden (which brings Orbit).
TRAIN = [
    "pycocotools",
    "tensorflow-datasets>=4.9.7",
    "tf-models-official>=2.20",
]
# The yardstick of the dense CRF: the module `pydensecrf`, built from source (needs a C++ compiler).
PYDENSECRF = ["pydensecrf2"]
# predict.py on videos and cameras.
VIDEO = ["opencv-python-headless"]
# Warm-up requests in exports and the gRPC client. Later versions want a TensorFlow later than the Model Garden's.
SERVING = ["tensorflow-serving-api==2.20.*"]
# Other forms of an export: the converter to ONNX. LiteRT's is part of TensorFlow.
EXPORT = ["onnx", "tf2onnx>=1.17"]
TEST = [
    *TRAIN,
    *PYDENSECRF,
    *VIDEO,
    *SERVING,
    *EXPORT,
    "ai-edge-litert",
    "apache-beam",
    "cityscapesscripts",
    "hypothesis",
    "onnxruntime",
    "playwright",
    "pytest",
    "pytest-xdist",
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
    install_requires=[
        "absl-py",
        "h5py",
        "jinja2",
        "keras>=3.15",
        "matplotlib",
        "numba>=0.60",
        "numpy",
        "pillow",
        "protobuf",
        "scipy",
        "setuptools<81",  # TensorBoard imports pkg_resources, which later ones no longer have.
        "tensorflow>=2.20",
        "tqdm",
    ],
    extras_require={
        "train": TRAIN,
        "pydensecrf": PYDENSECRF,
        "video": VIDEO,
        "serving": SERVING,
        "export": EXPORT,
        "gpu": ["tensorflow[and-cuda]>=2.20"],
        "test": TEST,
    },
)
