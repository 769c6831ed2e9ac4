"""BDD100K: street scenes from driving cars, the ten thousand that are segmented, in the classes of Cityscapes."""

from deeplab_tf.classes import DatasetInfo
from deeplab_tf.data.archives import images_below, required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.raw import FilePair, read_pair, required_folder


class Builder(SegmentationBuilder, skip_registration=True):
    """Street scenes, 720x1280, nineteen classes."""

    name = "bdd100k"
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["bdd100k"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """The images of images/10k with the masks of labels/sem_seg; test has none."""
        raw = required_folder(self.raw_dir, "bdd100k", ())
        splits = {}
        for split in ("train", "val"):
            images, masks = f"images/10k/{split}", f"labels/sem_seg/masks/{split}"
            splits[split] = required_pairs("bdd100k", raw, (images, ".jpg"), (masks, ".png"))
        splits["test"] = images_below(raw, "images/10k/test", ".jpg")
        return {split: pairs for split, pairs in splits.items() if pairs}
