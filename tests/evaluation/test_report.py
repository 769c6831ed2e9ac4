"""The report as a browser shows it: pictures, sorting, nothing from outside, no error."""

import re

import numpy as np
import pytest

from deeplab_tf import Segmenter
from deeplab_tf.counts import mean_iou
from deeplab_tf.crf import DenseCRF
from deeplab_tf.evaluation import evaluate, write_report
from deeplab_tf.evaluation.report import choose_images


@pytest.fixture(scope="module")
def reported(segmenter, make_examples, tmp_path_factory):
    """An evaluation with CRF and trimap, and the page of its report."""
    with_crf = Segmenter(segmenter.model, DenseCRF(iterations=2), segmenter.info)
    examples = make_examples([(40, 56), (33, 33), (50, 41), (64, 20), (40, 56), (48, 48), (41, 44)])
    subsets = {"two": with_crf.class_names[1:3]}
    made_with = {"dataset": "shapes", "limit": None, **with_crf.settings}
    evaluation = evaluate(with_crf, examples, trimap_widths=(1, 3, 9), subsets=subsets, made_with=made_with)
    folder = tmp_path_factory.mktemp("report")
    path = write_report(folder, evaluation, with_crf, examples, title="a <run> & its data", pictures_each=2)
    return evaluation, path


@pytest.fixture(scope="module")
def page(reported, new_page):
    """The page in a browser, with all that it said and asked for."""
    page = new_page()
    page.goto(reported[1].as_uri())
    return page


def column(page, table, number):
    return page.locator(f"#{table} tbody tr td:nth-child({number})").all_inner_texts()


def test_the_browser_shows_it_without_an_error(page):
    assert page.locator("h1").inner_text() == "a <run> & its data"
    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
    assert len(sizes) == 4 + 6 * 4  # charts; images as input, truth, network, CRF
    assert all(complete and width > 10 and height > 10 for complete, width, height in sizes)
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [page.url]


@pytest.mark.slow
def test_the_screenshot_is_no_blank_page(page):
    import io

    from PIL import Image

    screen = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(screen // 16, axis=0)) > 50 and (screen == 255).all(-1).mean() < 0.95


def test_the_page_says_what_was_evaluated(page, segmenter):
    text = page.locator("body").inner_text()
    assert "network: resnet_tiny, linear, output stride 8 · dataset: shapes" in text and "scales: 1" in text
    assert f"fingerprint: {segmenter.settings['fingerprint']}" in text and "iterations 2" in text
    assert "mirror" not in text and "limit" not in text  # Not asked for.


def test_the_figures_are_those_of_the_evaluation(page, reported):
    evaluation, _ = reported
    text = page.locator("body").inner_text()
    assert f"{100 * evaluation.network.mean_iou:.2f}" in text and f"{100 * evaluation.crf.mean_iou:.2f}" in text
    shown = dict(zip(column(page, "classes", 1), column(page, "classes", 4), strict=True))
    for name, value in zip(evaluation.class_names, evaluation.crf.iou, strict=True):
        assert shown[name] == ("" if np.isnan(value) else f"{100 * value:.2f}")


def test_the_means_stand_below_the_classes(reported):
    """Without a browser: for each subset a row with the means that the table of evaluate.py has."""
    evaluation, path = reported
    rows = path.read_text().split("<tfoot>")[1].split("</tfoot>")[0].split("<tr>")[1:]
    assert len(rows) == 2 and "mean of two" in rows[1]
    in_table = [line.split() for line in evaluation.table().splitlines() if line.startswith("mean")][:2]
    for row, words in zip(rows, in_table, strict=True):
        cells = re.findall("<td>(.*?)</td>", row)
        shown = [cell or "-" for cell in (*cells[2:4], *cells[5:])]  # A mean of no values is empty, there "-".
        assert shown == [word for word in words if word[0].isdigit() or word == "-"]


def test_a_click_on_the_head_sorts(page):
    for table, number in (("classes", 3), ("images", 4)):
        head = page.locator(f"#{table} th:nth-child({number})")
        head.click()
        values = [float(text or 0) for text in column(page, table, number)]
        assert values == sorted(values, reverse=True) and len(set(values)) > 1
        head.click()
        assert [float(text or 0) for text in column(page, table, number)] == values[::-1]
    page.locator("#classes th:nth-child(1)").click()
    assert column(page, "classes", 1) == sorted(column(page, "classes", 1))


def test_worst_median_and_best():
    scores = np.array([0.5, np.nan, 0.9, 0.1, 0.3, 0.7, 0.2, 0.8])
    chosen = choose_images(scores, 2)
    assert chosen == {3: "worst", 6: "worst", 4: "median", 0: "median", 7: "best", 2: "best"}
    assert list(chosen) == sorted(chosen, key=lambda i: scores[i])
    assert choose_images(scores[:1], 4) == {0: "best"}
    assert choose_images(np.array([np.nan]), 4) == {}


def test_the_images_are_the_extremes(page, reported):
    scores = mean_iou(reported[0].image_counts.crf)
    kinds = dict(zip(column(page, "images", 1), column(page, "images", 2), strict=True))
    assert kinds[f"{scores.argmax()}.jpg"] == "best" and kinds[f"{scores.argmin()}.jpg"] == "worst"
