"""The cost of a training step on paper: FLOPs, activations, all-reduce traffic, summed over the layers of the model.

python benchmarks/step_cost.py --head=aspp_l
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def costs(network, size: int) -> tuple[float, float]:
    """Counts one forward pass of one image.

    Args:
        network: the functional part of a DeepLab.
        size: height and width of the image, pixels, 8k+1.

    Returns:
        (FLOPs, bytes of the float32 outputs of its convolutions).
    """
    import keras

    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    maps = keras.Model(network.inputs, [layer.output for layer in layers])
    outputs = maps.compute_output_spec(keras.KerasTensor((1, size, size, 3)))  # Shapes only, no arithmetic.
    flops = activations = 0.0
    for layer, output in zip(layers, outputs, strict=True):
        _, height, width, filters = output.shape
        rows, columns, channels, _ = layer.kernel.shape
        flops += 2.0 * rows * columns * channels * filters * height * width
        activations += 4.0 * height * width * filters
    return flops, activations


def main() -> None:
    """Prints the table for the model that the flags name."""
    from deeplab_tf import DeepLab
    from deeplab_tf.models import geometry

    model = DeepLab(FLAGS.backbone, FLAGS.head, output_stride=FLAGS.output_stride)
    print(f"{FLAGS.backbone} {FLAGS.head}, {model.count_params() / 1e6:.1f} M parameters")
    for scales in ((1.0,), FLAGS.scales):
        sizes = [geometry.scaled_size(FLAGS.crop_size, scale) for scale in scales]
        per_scale = [costs(model.network, geometry.padded_size(size, model.output_stride)) for size in sizes]
        flops, activations = (sum(values) for values in zip(*per_scale, strict=True))
        print(
            f"inputs {'+'.join(map(str, sizes)):<12} forward {flops / 1e9:7.1f} GFLOP, "
            f"forward and backward {3 * flops / 1e9:7.1f} GFLOP, activations {activations / 2**20:6.0f} MiB per image"
        )
    gradients = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    print(f"gradients to sum over replicas: {4 * gradients / 2**20:.0f} MiB per update in float32")


if __name__ == "__main__":
    flags.run(main, "benchmarks/step_cost.py")
