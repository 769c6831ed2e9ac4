"""The calls of pydensecrf, computed by this project: change the package's name in the import, and nothing else.

    import deeplab_tf.crf.pydensecrf.densecrf as dcrf      # was: import pydensecrf.densecrf as dcrf

The answers are pydensecrf's, on all cores. `densecrf` and `utils` are its two modules; their names are here too.
"""

from deeplab_tf.crf.pydensecrf import densecrf, utils
from deeplab_tf.crf.pydensecrf.densecrf import *  # noqa: F403
from deeplab_tf.crf.pydensecrf.densecrf import __all__ as _densecrf_names
from deeplab_tf.crf.pydensecrf.utils import *  # noqa: F403
from deeplab_tf.crf.pydensecrf.utils import __all__ as _utils_names

__all__ = ["densecrf", "utils", *_densecrf_names, *_utils_names]
