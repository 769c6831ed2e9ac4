"""Opens a web page on this machine: drop a photograph, see its labels, move the parameters of the CRF.

python tools/demo.py --model_dir=runs/voc
python tools/demo.py --model_dir=runs/voc --checkpoint=best --port=8000 --longer_side=1024

The page shows the overlay, the labels and their confidence, and offers the mask and the crf.json of its sliders, which
start at the run's crf.json. Nothing leaves this machine. Ctrl-C ends it. Needs pip install -e '.[demo]'.
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Serves the page of --model_dir until Ctrl-C."""
    from deeplab_tf.inference import demo_page

    demo_page.check_port(FLAGS.port)  # before the network is loaded
    from deeplab_tf.inference import Segmenter

    segmenter = Segmenter.load(FLAGS.model_dir, crf=True, **flags.inference_options())
    demo_page.serve(segmenter, port=FLAGS.port, longer_side=FLAGS.longer_side)


if __name__ == "__main__":
    flags.run(main, "tools/demo.py", required=("model_dir",), of_a_run=True)
