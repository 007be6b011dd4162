"""Preparation by tensorflow-datasets, with files from a local server."""

import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import socket
import subprocess
import sys
import tarfile
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from convjax.data import DataError, load
from convjax.data.catalog import CLASS_NAMES

from .conftest import assert_same, write_idx_set

NEEDED = ("tensorflow_datasets", "tensorflow", "importlib_resources")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]

needs_tfds = [
    pytest.mark.tfds,
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}"),
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder, and the address at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{running.server_port}/")
        running.shutdown()
        thread.join()


@pytest.fixture
def closed_url():
    """An address at which no server listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def builders():
    """The modules that hold the builders of tensorflow-datasets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow_datasets.image_classification import cifar, mnist
    return SimpleNamespace(cifar=cifar, mnist=mnist)


def checksums(server):
    """Returns what tensorflow-datasets registers about its downloads, for the served files."""
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.units import Size

    return {
        server.url + path.name: UrlInfo(
            size=Size(path.stat().st_size),
            checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
            filename=path.name,
        )
        for path in server.folder.iterdir()
    }


def serve_mnist(server, builders, monkeypatch, name):
    """Serves small files in place of the originals, with matching counts and checksums."""
    arrays = write_idx_set(server.folder, num_train=300, num_test=70, seed=len(name), side=28)
    monkeypatch.setattr(builders.mnist, "_TRAIN_EXAMPLES", 300)
    monkeypatch.setattr(builders.mnist, "_TEST_EXAMPLES", 70)
    builder = {"mnist": builders.mnist.MNIST, "fashion_mnist": builders.mnist.FashionMNIST}[name]
    monkeypatch.setattr(builder, "URL", server.url)
    monkeypatch.setattr(builder, "url_infos", checksums(server))
    return builder, arrays


class TestLoadPrepared:
    pytestmark = needs_tfds

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_mnist(self, name, server, builders, monkeypatch, tmp_path):
        _, arrays = serve_mnist(server, builders, monkeypatch, name)
        # A data folder without the files of this set is ignored.
        monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path))
        dataset = load(name, cache_dir=tmp_path / "cache")
        assert dataset.class_names == CLASS_NAMES[name]
        # In the order of the original files, which tensorflow-datasets would shuffle.
        np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train-images-idx3"])
        np.testing.assert_array_equal(dataset.train.labels, arrays["train-labels-idx1"])
        assert_same(load(name, data_dir=server.folder), dataset)
        # Only the arrays are kept.
        names = {path.name for path in (tmp_path / "cache").iterdir()}
        assert names <= {f"{name}.npz", f"{name}.lock"}

    def test_cifar10(self, server, builders, monkeypatch, tmp_path):
        rng = np.random.default_rng(0)
        files = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
        # A record is the label and 32×32 values of red, then of green and of blue.
        records = rng.integers(0, 256, (6, 20, 1 + 3072), np.uint8)
        records[:, :, 0] %= 10
        meta = "\n".join(CLASS_NAMES["cifar10"]).encode() + b"\n\n"
        contents = dict(zip(files, map(np.ndarray.tobytes, records), strict=True))
        with tarfile.open(server.folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
            for name, content in (contents | {"batches.meta.txt": meta}).items():
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        builder = builders.cifar.Cifar10
        info = builder._cifar_info.fget(SimpleNamespace(name="cifar10"))
        local = info._replace(url=server.url + "cifar-10-binary.tar.gz")
        monkeypatch.setattr(builder, "_cifar_info", local)
        monkeypatch.setattr(builder, "url_infos", checksums(server))

        dataset = load("cifar10", cache_dir=tmp_path / "cache")
        images = records[..., 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(dataset.train.images, images[:100])
        np.testing.assert_array_equal(dataset.test.images, images[100:])
        np.testing.assert_array_equal(dataset.train.labels, records[:5, :, 0].ravel())
        assert dataset.class_names == CLASS_NAMES["cifar10"]

    def test_second_load_does_not_import_tensorflow(self, server, builders, monkeypatch, tmp_path):
        serve_mnist(server, builders, monkeypatch, "mnist")
        dataset = load("mnist", cache_dir=tmp_path / "cache")
        program = (
            "import socket, sys\n"
            "def refuse(*args, **kwargs): raise AssertionError('network')\n"
            "socket.socket.connect = refuse\n"
            "from convjax.data import load\n"
            "print(load('mnist', cache_dir=sys.argv[1]))\n"
            "assert not {'tensorflow', 'tensorflow_datasets', 'requests'} & sys.modules.keys()\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, str(tmp_path / "cache")],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == repr(dataset)

    def test_no_network(self, server, builders, monkeypatch, tmp_path, closed_url):
        builder, _ = serve_mnist(server, builders, monkeypatch, "mnist")
        infos = {url.replace(server.url, closed_url): i for url, i in builder.url_infos.items()}
        monkeypatch.setattr(builder, "URL", closed_url)
        monkeypatch.setattr(builder, "url_infos", infos)
        with pytest.raises(
            DataError, match=r"mnist cannot be downloaded: http://127.*IDX files as data_dir"
        ):
            load("mnist", cache_dir=tmp_path / "cache")
        # With a network the same call succeeds.
        monkeypatch.setattr(builder, "URL", server.url)
        monkeypatch.setattr(builder, "url_infos", checksums(server))
        assert len(load("mnist", cache_dir=tmp_path / "cache").train.images) == 300

    def test_file_missing_on_the_server(self, server, builders, monkeypatch, tmp_path):
        serve_mnist(server, builders, monkeypatch, "mnist")
        (server.folder / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(
            DataError, match=r"mnist could not be downloaded or prepared .*HTTP code: 404"
        ):
            load("mnist", cache_dir=tmp_path / "cache")

    def test_altered_download(self, server, builders, monkeypatch, tmp_path):
        serve_mnist(server, builders, monkeypatch, "mnist")
        (server.folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
        with pytest.raises(
            DataError, match=r"mnist could not be downloaded or prepared .*wrong checksum"
        ):
            load("mnist", cache_dir=tmp_path / "cache")
        assert not list((tmp_path / "cache").glob("*.npz"))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_load_prepared_without_tensorflow(name, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = rf'{name} is not cached.*tensorflow not found.*pip install "convjax\[tfds\]"'
    with pytest.raises(DataError, match=f"{message}.*pass .* folder with its .* as data_dir"):
        load(name, cache_dir=tmp_path)


def test_load_prepared_with_a_broken_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DataError, match=r"needs tensorflow-datasets with TensorFlow .*tensorflow"):
        load("mnist", cache_dir=tmp_path)


def test_load_prepared_rejects_an_unwritable_cache_before_any_work(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(
        "convjax.data.tfds._prepare", lambda *args: pytest.fail("started to prepare")
    )
    with pytest.raises(DataError, match=r"cache folder .*cannot be written.*\$CONVJAX_CACHE_DIR"):
        load("mnist", cache_dir=blocked)
