"""Programs written for pydensecrf, which run with its modules or with those of `deeplab_tf.crf.pydensecrf`.

Every program takes the modules `densecrf` and `utils` and returns arrays: labels, marginals or energies.
`python -m tests.crf.pydensecrf_programs` writes pydensecrf's own answers to tests/crf/pydensecrf_answers.npz (it needs
pydensecrf: pip install pydensecrf2), so that the tests can compare with them where it is not installed.
"""

import pathlib

import numpy as np

ANSWERS = pathlib.Path(__file__).with_name("pydensecrf_answers.npz")
HEIGHT, WIDTH, CLASSES = 30, 42, 4


def scene():
    """A photograph uint8 [H, W, 3] of two surfaces, and a softmax float32 [C, H, W] that is right in the main."""
    generator = np.random.default_rng(5)
    image = np.empty((HEIGHT, WIDTH, 3))
    image[:] = (70, 90, 130)
    image[:, 20:] = (160, 90, 50)
    image[22:, :30] = (90, 140, 60)
    scores = generator.normal(0, 1, (CLASSES, HEIGHT, WIDTH))
    for label, part in enumerate((np.s_[:22, :18], np.s_[:, 18:], np.s_[22:, :29])):
        scores[label][part] += 1.5
    softmax = np.exp(scores) / np.exp(scores).sum(0)
    image = np.clip(image + generator.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    return image, softmax.astype(np.float32)


def _costs():
    """Compatibilities: a number, a vector and a (not symmetric) matrix."""
    generator = np.random.default_rng(6)
    matrix = 3 - 3 * np.eye(CLASSES) + generator.uniform(-1, 1, (CLASSES, CLASSES))
    return {"number": 3, "vector": -generator.uniform(1, 4, CLASSES).astype("f4"), "matrix": matrix.astype("f4")}


def _image_crf(densecrf, utils, compat=4, kernel=None, normalization=None, sxy=(20, 30), srgb=(13, 10, 8)):
    image, softmax = scene()
    d = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    d.setUnaryEnergy(utils.unary_from_softmax(softmax))
    more = {"kernel": densecrf.DIAG_KERNEL if kernel is None else kernel}
    more["normalization"] = densecrf.NORMALIZE_SYMMETRIC if normalization is None else normalization
    d.addPairwiseGaussian(sxy=3, compat=compat, **more)
    d.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image, compat=compat, **more)
    return d


def defaults(densecrf, utils):
    image, softmax = scene()
    d = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    d.setUnaryEnergy(utils.unary_from_softmax(softmax))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    return np.array(d.inference(10))


def _with(compat, normalization):
    def program(densecrf, utils):
        # Without normalisation the row sums are in the hundreds.
        costs = _costs()[compat] * (0.01 if normalization == "NO_NORMALIZATION" else 1)
        d = _image_crf(densecrf, utils, costs, normalization=getattr(densecrf, normalization))
        return np.array(d.inference(5))

    return program


def _kernel(name):
    return lambda densecrf, utils: np.array(_image_crf(densecrf, utils, kernel=getattr(densecrf, name)).inference(5))


def scalar_widths(densecrf, utils):
    return np.array(_image_crf(densecrf, utils, sxy=25, srgb=9.5).inference(5))


def steps(densecrf, utils):
    d = _image_crf(densecrf, utils)
    q, tmp1, tmp2 = d.startInference()
    found = [np.array(q).copy()]
    for _ in range(4):
        d.stepInference(q, tmp1, tmp2)
        found.append(np.array(q).copy())
    return np.stack(found)


def changed_between_steps(densecrf, utils):
    """Steps take the unaries and kernels of the moment; klDivergence leaves no trace in them."""
    d = _image_crf(densecrf, utils)
    q, tmp1, tmp2 = d.startInference()
    d.addPairwiseGaussian(sxy=1, compat=2)
    d.stepInference(q, tmp1, tmp2)
    d.klDivergence(d.startInference()[0])
    found = [np.array(q).copy()]
    d.setUnaryEnergy(-utils.unary_from_softmax(scene()[1]))
    d.stepInference(q, tmp1, tmp2)
    return np.stack([*found, np.array(q).copy()])


def divergence(densecrf, utils):
    found = []
    for compat in _costs().values():
        d = _image_crf(densecrf, utils, compat)
        q, tmp1, tmp2 = d.startInference()
        for _ in range(3):
            found.append(d.klDivergence(q))
            d.stepInference(q, tmp1, tmp2)
    return np.array(found)


def no_pairwise(densecrf, utils):
    d = densecrf.DenseCRF(HEIGHT * WIDTH, CLASSES)
    d.setUnary(densecrf.ConstUnary(utils.unary_from_softmax(scene()[1])))
    return np.array(d.inference(3))


def no_unary(densecrf, utils):
    d = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    d.addPairwiseGaussian(3, 3)
    return np.array(d.inference(3))


def large_energies(densecrf, utils):
    """Energies in the hundreds, and messages to match: no probability would hold them."""
    image, softmax = scene()
    d = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    d.setUnaryEnergy(150 * utils.unary_from_softmax(softmax) - 300)
    d.addPairwiseBilateral(40, 20, image, 300)
    return np.array(d.inference(5))


def volume(densecrf, utils):
    """A grey volume by the features of utils, the channels nowhere, first or last."""
    generator = np.random.default_rng(7)
    shape = (8, 10, 12)
    grey = np.where(np.arange(12) > 6, 120.0, 60.0) * np.ones(shape) + generator.normal(0, 6, shape)
    softmax = generator.dirichlet([1, 2], shape).transpose(3, 0, 1, 2)
    energies = np.ascontiguousarray(utils.unary_from_softmax(softmax))
    found = []
    for img, chdim in ((grey, -1), (np.stack([grey, grey / 2]), 0), (np.stack([grey, grey / 2], -1), 3)):
        d = densecrf.DenseCRF(grey.size, 2)
        d.setUnaryEnergy(energies)
        schan = 20 if chdim == -1 else (20, 15)
        for features in (
            utils.create_pairwise_gaussian((2, 2, 3), shape),
            utils.create_pairwise_bilateral((5, 6, 7), schan, img, chdim),
        ):
            d.addPairwiseEnergy(np.ascontiguousarray(features), compat=3)
        found.append(np.array(d.inference(5)))
    return np.stack(found)


def points(densecrf, utils):
    """Points with 1, 3 and 8 features, some of them negative."""
    generator = np.random.default_rng(8)
    d = densecrf.DenseCRF(500, 3)
    d.setUnaryEnergy(utils.unary_from_labels(generator.integers(0, 3, 500), 3, 0.6, zero_unsure=False))
    for dimensions in (1, 3, 8):
        d.addPairwiseEnergy(generator.normal(0, 3, (dimensions, 500)).astype("f4"), compat=2)
    return np.array(d.inference(5))


def label_unaries(densecrf, utils):
    labels = np.random.default_rng(9).integers(0, CLASSES + 1, (5, 7))
    unsure = utils.unary_from_labels(labels, CLASSES, 0.7)
    sure = utils.unary_from_labels(labels.ravel(), CLASSES + 1, 0.7, zero_unsure=False)
    return np.concatenate(
        [unsure, sure, utils.compute_unary(labels, CLASSES), utils.compute_unary(labels, CLASSES, 0.9)]
    )


def softmax_unaries(densecrf, utils):
    softmax = scene()[1]
    softmax = np.where(softmax < 0.05, 0, softmax) + 1e-9
    return np.concatenate(
        [
            utils.unary_from_softmax(softmax),
            utils.unary_from_softmax(softmax, scale=0.8),
            utils.unary_from_softmax(softmax, clip=0.01),
            utils.unary_from_softmax(softmax, 0.5, None),
            utils.softmax_to_unary(softmax),
            utils.softmax_to_unary(softmax, GT_PROB=0.9),
        ]
    )


def irn(densecrf, utils):
    """The refinement of class activation maps as IRN calls it (misc/imutils.py, `crf_inference_label`)."""

    def crf_inference_label(img, labels, t=10, n_labels=21, gt_prob=0.7):
        h, w = img.shape[:2]
        d = densecrf.DenseCRF2D(w, h, n_labels)
        unary = utils.unary_from_labels(labels, n_labels, gt_prob=gt_prob, zero_unsure=False)
        d.setUnaryEnergy(unary)
        d.addPairwiseGaussian(sxy=3, compat=3)
        d.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(np.copy(img)), compat=10)
        q = d.inference(t)
        return np.argmax(np.array(q).reshape((n_labels, h, w)), axis=0)

    image, softmax = scene()
    return crf_inference_label(image, softmax.argmax(0), n_labels=CLASSES)


def deeplab_pytorch(densecrf, utils):
    """The class of deeplab-pytorch (libs/utils/crf.py), by its calls."""

    class DenseCRF:
        def __init__(self, iter_max, pos_w, pos_xy_std, bi_w, bi_xy_std, bi_rgb_std):
            self.iter_max, self.pos_w, self.pos_xy_std = iter_max, pos_w, pos_xy_std
            self.bi_w, self.bi_xy_std, self.bi_rgb_std = bi_w, bi_xy_std, bi_rgb_std

        def __call__(self, image, probmap):
            C, H, W = probmap.shape
            U = np.ascontiguousarray(utils.unary_from_softmax(probmap))
            image = np.ascontiguousarray(image)
            d = densecrf.DenseCRF2D(W, H, C)
            d.setUnaryEnergy(U)
            d.addPairwiseGaussian(sxy=self.pos_xy_std, compat=self.pos_w)
            d.addPairwiseBilateral(sxy=self.bi_xy_std, srgb=self.bi_rgb_std, rgbim=image, compat=self.bi_w)
            Q = d.inference(self.iter_max)
            return np.array(Q).reshape((C, H, W))

    image, softmax = scene()
    return DenseCRF(10, 3, 1, 4, 67, 3)(image[:, :, ::-1], softmax)


NORMALIZATIONS = ("NO_NORMALIZATION", "NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC")
PROGRAMS = {
    **{f"{c} {n}": _with(c, n) for c in ("number", "vector", "matrix") for n in NORMALIZATIONS},
    **{name: _kernel(name) for name in ("CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL")},
    **{
        program.__name__: program
        for program in (
            *(
                defaults,
                scalar_widths,
                steps,
                changed_between_steps,
                divergence,
                no_pairwise,
                no_unary,
                large_energies,
                volume,
                points,
            ),
            *(label_unaries, softmax_unaries, irn, deeplab_pytorch),
        )
    },
}


if __name__ == "__main__":
    import pydensecrf.densecrf
    import pydensecrf.utils

    np.savez_compressed(ANSWERS, **{name: run(pydensecrf.densecrf, pydensecrf.utils) for name, run in PROGRAMS.items()})
