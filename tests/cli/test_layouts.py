import pytest
from typer.testing import CliRunner

from convjax.cli.app import app


def invoke(*words):
    return CliRunner().invoke(app, ["layouts", *map(str, words)])


def test_layouts_compares_the_network_and_recommends(monkeypatch):
    result = invoke("--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert "images (2, 28, 28, 1), forward and backward, in a loop" in result.stdout
    assert all(layout in result.stdout for layout in ("NHWC", "NCHW", "CHWN"))
    assert "\ncpu: " in result.stdout


def test_layouts_takes_a_network_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from convjax import conv2d\n"
        "import jax.numpy as jnp\n"
        "from convjax.ops import images_to, kernel_to\n"
        "def net(layout):\n"
        "    kernel = kernel_to(jnp.ones((3, 3, 3, 4)), layout, source='NHWC')\n"
        "    return lambda x: conv2d(images_to(x, layout), kernel, layout=layout)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = invoke("mine:net", "--image", "4,5,3", "--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert "images (2, 4, 5, 3)" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet",), "NETWORK must be digits, cifar_resnet20, resnet18, resnet50 or MODULE:FUNC"),
        (("none:net",), "NETWORK must be MODULE:FUNCTION, got 'none:net': No module named 'none'"),
        (("math:net",), "got 'math:net': module 'math' has no attribute 'net'"),
        (("math:sin", "--image", "4,5"), "--image must be H,W,C, got '4,5'. Write 224,224,3, say."),
        (("--target", "b200"), "'b200'"),
    ],
)
def test_layouts_reports_mistakes_in_one_line(words, message):
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
