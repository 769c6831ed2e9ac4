"""The metrics of the paper, comparisons, reports, submissions, pictures, and scores of any folder of masks.

Importing it is light: TensorFlow is imported when the first name that needs it is used.
"""

import importlib

_MODULES = {
    "deeplab_tf.counts": ("ConfusionMatrix", "ImageCounts"),
    "deeplab_tf.evaluation.comparison": ("Comparison", "check_classes", "compare"),
    "deeplab_tf.evaluation.crf_search": ("search_crf",),
    "deeplab_tf.evaluation.drawing": ("evaluate_and_draw",),
    "deeplab_tf.evaluation.evaluating": ("Evaluation", "evaluate"),
    "deeplab_tf.evaluation.report": ("write_report",),
    "deeplab_tf.evaluation.stored": ("StoredEvaluation", "compare_stored", "compare_with_run"),
    "deeplab_tf.evaluation.folder_score": ("FolderScore",),
    "deeplab_tf.evaluation.scoring": ("MaskFolder", "score_folders"),
    "deeplab_tf.evaluation.submission": ("Submission",),
    "deeplab_tf.evaluation.trimap": ("TrimapCurve",),
    "deeplab_tf.evaluation.validation": ("make_validate",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *__all__])
