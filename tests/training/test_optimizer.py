"""The update rule against NumPy and against torch, the multipliers against the paper's."""

import keras
import numpy as np
import pytest

from deeplab_tf import DeepLab
from deeplab_tf.errors import UserError
from deeplab_tf.training import CaffeSGD, caffe_multipliers, learning_rate_schedule

KERNEL = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
BIAS = np.array([0.3, -0.7], np.float32)


def gradients(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Some gradient that changes with the step."""
    return np.cos(KERNEL + step).astype(np.float32), np.sin(BIAS * (step + 1)).astype(np.float32)


def new_variables() -> list[keras.Variable]:
    layer = keras.layers.Dense(2, name="fc8")
    layer.build((None, 2))
    layer.set_weights([KERNEL, BIAS])
    return layer.trainable_variables


def updated(schedule, decay: float, rates: tuple[float, float], steps: int, **options) -> list[np.ndarray]:
    variables = new_variables()
    multipliers = {variable.path: rate for variable, rate in zip(variables, rates, strict=True)}
    optimizer = CaffeSGD(schedule, 0.9, decay, multipliers, **options)
    for step in range(steps):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients(step)], variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_update_rule_in_closed_form():
    steps, decay, rate = 7, 0.05, 0.1
    kernel, bias = KERNEL.astype(np.float64), BIAS.astype(np.float64)
    kernel_velocity, bias_velocity = 0.0, 0.0
    for step in range(steps):
        kernel_gradient, bias_gradient = gradients(step)
        lr = rate * (1 - step / 10) ** 0.9
        kernel_velocity = 0.9 * kernel_velocity + lr * 10 * (kernel_gradient + decay * kernel)
        bias_velocity = 0.9 * bias_velocity + lr * 20 * bias_gradient  # No decay on biases.
        kernel, bias = kernel - kernel_velocity, bias - bias_velocity

    got_kernel, got_bias = updated(learning_rate_schedule("poly", rate, 10), decay, (10.0, 20.0), steps)
    np.testing.assert_allclose(got_kernel, kernel, rtol=1e-5)
    np.testing.assert_allclose(got_bias, bias, rtol=1e-5)


def test_clipping_of_torch():
    """The norm is that of all gradients together, before decay and multipliers."""
    torch = pytest.importorskip("torch")
    kernel, bias = (torch.nn.Parameter(torch.tensor(array)) for array in (KERNEL, BIAS))
    theirs = torch.optim.SGD([kernel, bias], lr=0.01, momentum=0.9)
    norms = []
    for step in range(4):
        kernel.grad, bias.grad = (torch.tensor(g) for g in gradients(step))
        norms.append(float(torch.nn.utils.clip_grad_norm_([kernel, bias], 1.7)))
        theirs.step()
    assert min(norms) < 1.7 < max(norms)

    got_kernel, got_bias = updated(0.01, 0.0, (1.0, 1.0), 4, global_clipnorm=1.7)
    np.testing.assert_allclose(got_kernel, kernel.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(got_bias, bias.detach().numpy(), rtol=1e-5)


def test_update_rule_of_torch_sgd():
    torch = pytest.importorskip("torch")
    rate, decay = 0.01, 0.05
    kernel, bias = (torch.nn.Parameter(torch.tensor(array)) for array in (KERNEL, BIAS))
    theirs = torch.optim.SGD(
        [
            {"params": [kernel], "lr": 10 * rate, "weight_decay": decay},
            {"params": [bias], "lr": 20 * rate, "weight_decay": 0.0},
        ],
        momentum=0.9,
    )
    for step in range(6):
        kernel.grad, bias.grad = (torch.tensor(g) for g in gradients(step))
        theirs.step()

    got_kernel, got_bias = updated(rate, decay, (10.0, 20.0), 6)
    np.testing.assert_allclose(got_kernel, kernel.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(got_bias, bias.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "head", "expected"),
    [
        ("vgg16", "aspp_s", {"fc8_3/kernel": 10, "fc8_3/bias": 20, "conv1_1/kernel": 1, "fc6_1/bias": 2}),
        ("resnet_tiny", "aspp_l", {"fc1_c0/kernel": 10, "fc1_c3/bias": 20, "res2a_branch2a/kernel": 1}),
    ],
)
def test_multipliers_of_the_paper(backbone, head, expected):
    multipliers = caffe_multipliers(DeepLab(backbone, head, num_classes=3, scales=(1.0,)))
    by_layer = {"/".join(path.split("/")[-2:]): value for path, value in multipliers.items()}
    assert {name: by_layer[name] for name in expected} == expected


def test_fast_layers_learn_as_the_classifier():
    model = DeepLab("vgg16", "aspp_s", num_classes=3, scales=(1.0,))
    fast = set()
    for path, value in caffe_multipliers(model, 5.0, "fc[67]_1").items():
        layer, name = path.split("/")[-2:]
        fast |= {layer} if value == {"kernel": 5.0, "bias": 10.0}[name] else set()
    assert fast == {"fc6_1", "fc7_1", *model.classifier_layers}
    with pytest.raises(UserError, match=r"--fast_layers=fc9 matches no layer that is trained; .* conv1_1, conv1_2"):
        caffe_multipliers(model, 5.0, "fc9")


def test_decay_falls_on_kernels_alone():
    variables = DeepLab("resnet_tiny", "linear", num_classes=3, scales=(1.0,)).trainable_variables
    before = {variable.path: variable.numpy() for variable in variables}
    optimizer = CaffeSGD(0.1, momentum=0.0, coupled_weight_decay=0.5)
    optimizer.apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    for variable in variables:
        shrunk = 0.95 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable.numpy(), shrunk * before[variable.path], rtol=1e-6)


def test_schedules_of_the_paper():
    poly = learning_rate_schedule("poly", 2.5e-4, 20_000)
    step = learning_rate_schedule("step", 1e-3, 6_000, step_size=2_000)
    for iteration in (0, 1, 999, 10_000, 19_999):
        # Near the end 1 - step/max_steps has few digits left in float32.
        assert float(poly(iteration)) == pytest.approx(2.5e-4 * (1 - iteration / 20_000) ** 0.9, rel=5e-4)
    assert [float(step(i)) for i in (0, 1_999, 2_000, 4_000)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    with pytest.raises(ValueError, match="'cosine'.*'poly' or 'step'"):
        learning_rate_schedule("cosine", 1.0, 1)
