"""Names of the files in the folder of a run (`model_dir`)."""

CHECKPOINTS = "checkpoints"
DESCRIPTION_FILE = "segmenter.json"
CRF_FILE = "crf.json"
EVALUATION_FILE = "evaluation.json"
IMAGE_COUNTS_FILE = "evaluation_images.npz"
OVERLAYS = "overlays"
