"""The training of the paper: the recipe, loss, schedules, optimizer, the loop (Orbit's), and `train`, which runs them.

`Recipe` and its module are light; TensorFlow is imported when the first name that needs it is used.
"""

import importlib

_MODULES = {
    "recipe": ("Recipe",),
    "assembly": ("TrainingResult", "train"),
    "class_weights": ("balanced_class_weights", "read_class_weights"),
    "config": ("check_same_run", "write_config"),
    "distribution": ("is_chief", "make_strategy"),
    "loss": ("labels_on_grid", "position_weights", "summed_cross_entropy"),
    "optimizer": ("CaffeSGD", "caffe_multipliers"),
    "schedules": ("learning_rate_schedule",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *__all__])
