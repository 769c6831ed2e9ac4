"""The metrics of the paper, comparisons, reports, submissions, pictures, and scores of any folder of masks.

Importing it is light: TensorFlow is imported when the first name that needs it is used.
"""

from deeplab_tf.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "deeplab_tf.counts": ("ConfusionMatrix", "ImageCounts"),
        "deeplab_tf.evaluation.comparison": ("Comparison", "check_classes", "compare"),
        "deeplab_tf.evaluation.crf_search": ("search_crf",),
        "deeplab_tf.evaluation.drawing": ("evaluate_and_draw",),
        "deeplab_tf.evaluation.evaluating": ("Evaluation", "evaluate"),
        "deeplab_tf.evaluation.report": ("write_report",),
        "deeplab_tf.evaluation.stored": ("StoredEvaluation", "compare_stored", "compare_with_run"),
        "deeplab_tf.evaluation.score_result": ("FolderScore",),
        "deeplab_tf.evaluation.scoring": ("MaskFolder", "score_folders"),
        "deeplab_tf.evaluation.submission": ("Submission",),
        "deeplab_tf.evaluation.trimap": ("TrimapCurve",),
        "deeplab_tf.evaluation.validation": ("make_validate",),
    },
)
