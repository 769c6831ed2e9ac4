"""The fully connected CRF as a library of its own; importable without TensorFlow."""

from deeplab_tf.crf.dense_crf import DenseCRF, Iteration
from deeplab_tf.crf.label_maps import label_probabilities
from deeplab_tf.crf.map_files import MapReader
from deeplab_tf.crf.refining import refine_many
from deeplab_tf.crf.search_result import SearchResult
from deeplab_tf.crf.searching import search

__all__ = ["DenseCRF", "Iteration", "MapReader", "SearchResult", "label_probabilities", "refine_many", "search"]
