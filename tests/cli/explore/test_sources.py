"""Pages of the chapter's spreadsheet and of trained runs."""

import itertools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from convjax.analysis._precedents import Windows, trace_precedents
from convjax.chapter.setting import BATCH_NORM, THREE_OR_SEVEN
from convjax.chapter.spreadsheet import PUBLISHED, Sheet
from convjax.cli.explorer_input import example
from experiments.harness.lab import Lab
from experiments.spreadsheet import network
from tests.cli.explore.command import assert_mistake, invoke, leave_run
from tests.cli.explore.reader import Page
from tests.experiments.browser import view

SHEET = Path(__file__).parents[5] / "shared" / "data" / "conv-example.xlsx"


@pytest.fixture(scope="module")
def from_spreadsheet(tmp_path_factory):
    if not SHEET.exists():
        pytest.skip("the chapter's conv-example.xlsx is not part of the project")
    path = tmp_path_factory.mktemp("sheet") / "explorer.html"
    result = invoke("--spreadsheet", SHEET, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_explore_spreadsheet_has_its_value(browser, from_spreadsheet):
    view(browser)
    sheet = Page(browser, from_spreadsheet)
    assert repr(PUBLISHED) == "258.73762671075724"
    assert sheet.text("#sum .value") == "= 258.73762671075724"
    state = sheet.state
    assert state["maps"][4] == [[[PUBLISHED]]]
    found = network(Sheet(SHEET))
    for mine, name in zip(state["maps"][1:4], ("maps_1", "maps_2", "pooled"), strict=True):
        # The same sums of float64 products in another order.
        np.testing.assert_allclose(mine, found[name], rtol=1e-12, atol=1e-12)
    assert len(browser.find_elements("css selector", ".products td")) == 2 * 12 * 13
    # All of the map, 24×24 of the second's: nothing reads its 25th column but the half windows.
    assert [len(marks) for marks in state["marks"]] == [28 * 28, 26 * 26, 24 * 25, 12 * 13]
    assert browser.get_log("browser") == []
    widest = browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= 1280


def test_explore_spreadsheet_pool_has_a_half_window(browser, from_spreadsheet):
    sheet = Page(browser, from_spreadsheet)
    sheet.point(3, 4, 12)
    assert sheet.state["marks"][2] == [[8, 24], [9, 24]]
    assert len(browser.find_elements("css selector", ".products td.outside")) == 2


@pytest.mark.parametrize("setting", [BATCH_NORM, THREE_OR_SEVEN], ids=["digits", "threes-sevens"])
def test_explore_shows_a_trained_run(browser, lab, setting, tmp_path):
    model = leave_run(lab, setting, tmp_path / "run")
    result = invoke("--run", tmp_path / "run", "--out", tmp_path / "run.html")
    assert result.exit_code == 0, result.output
    view(browser)
    run = Page(browser, tmp_path / "run.html")
    state = run.state
    assert len(state["maps"]) == 6
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    image = (example().image / 255 - config["mean"][0]) / config["std"][0]
    np.testing.assert_allclose(state["maps"][0], image, rtol=1e-15)
    pixels = jnp.asarray(image.transpose(1, 2, 0)[None], jnp.float32)
    logits = nnx.jit(lambda model, pixels: model(pixels))(model, pixels)[0]
    # The network computes in float32.
    np.testing.assert_allclose(np.ravel(state["maps"][5]), logits, rtol=1e-4, atol=1e-5)
    assert ("batch norm" in run.text("#sum .steps")) == (setting.norm == "batch")
    assert state["cell"]["channel"] == int(jnp.argmax(logits))
    run.point(3, 1, 2)
    windows = [Windows(5 if setting is BATCH_NORM else 3, 2, 2 if setting is BATCH_NORM else 1)]
    masks = trace_precedents((1, 2), (28, 28), [*windows, *[Windows(3, 2, 1)] * 2])
    assert [len(marks) for marks in run.state["marks"]] == [mask.sum() for mask in masks]
    assert browser.get_log("browser") == []
    widest = browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= 1280


def test_explore_shows_a_run_of_a_gpu(tmp_path):
    lab = Lab(out=tmp_path / "lab", layout="NHWC")
    leave_run(lab, THREE_OR_SEVEN, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    del config["checksums"]  # of a file that is edited, they do not fit
    config["layout"], config["environment"]["backend"] = "auto", "gpu"
    file.write_text(json.dumps(config))
    result = invoke("--run", tmp_path / "run", "--out", tmp_path / "run.html")
    assert result.exit_code == 0, result.output


# The images of this folder are all equal.
@pytest.mark.filterwarnings("ignore:every pixel of the:UserWarning")
@pytest.mark.filterwarnings("ignore:4 of the 4 test images|2 of the 2 test images:UserWarning")
def test_explore_shows_images_of_a_folder(browser, tmp_path):
    for split, digit in itertools.product(("train", "test"), ("3", "7")):
        (tmp_path / "mine" / split / digit).mkdir(parents=True)
        pixels = np.full((28, 28), 200, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "mine" / split / digit / "0.png")
    lab = Lab(str(tmp_path / "mine"), out=tmp_path / "lab")
    leave_run(lab, THREE_OR_SEVEN, tmp_path / "run")
    out = tmp_path / "out" / "run.html"
    message = "--data-dir must be the folder of images of the run's training, 'mine/'"
    assert_mistake(invoke("--run", tmp_path / "run", "--out", out), message, out)
    result = invoke("--run", tmp_path / "run", "--data-dir", tmp_path / "mine", "--out", out)
    assert result.exit_code == 0, result.output
    image = np.array(Page(browser, out).state["maps"][0])
    np.testing.assert_allclose(image, np.full(image.shape, 200 / 255), rtol=1e-15)
