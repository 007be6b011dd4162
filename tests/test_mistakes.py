import shutil

import numpy as np
import pytest

from tests.mistakes import check_message, damaged, library, listing


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with the files that the expressions name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVJAX_DATA_DIR", raising=False)
    library.make_files(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def valid_run(tmp_path_factory):
    """A run that each test copies and damages."""
    path = tmp_path_factory.mktemp("valid") / "run"
    damaged.make_run(path)
    return path


@pytest.mark.parametrize("mistake", library.ROWS, ids=lambda mistake: mistake.what)
def test_library_reports_the_mistake(mistake, folder):
    before = listing(folder)
    with pytest.raises(mistake.kind) as caught:
        library.run(mistake.what)
    assert caught.type.__name__ == mistake.kind.__name__ or mistake.kind is OSError
    check_message(str(caught.value), mistake)
    assert listing(folder) == before


def test_library_names_are_valid():
    """The expressions fail because of the mistakes only: the objects that they use work."""
    names = library.names()
    state, record = names["trainer"].run(
        names["trainer"].start(names["network"]), names["images"], names["order"], names["table"]
    )
    assert record.steps == 2
    assert np.isfinite(names["trainer"].evaluate(state, names["images"]).loss)


@pytest.mark.parametrize("mistake", damaged.ROWS, ids=lambda mistake: mistake.what)
def test_load_run_reports_the_damage(mistake, folder, valid_run):
    shutil.copytree(valid_run, folder / "run")
    damaged.DAMAGES[mistake.what](folder / "run")
    before = listing(folder)
    with pytest.raises(mistake.kind) as caught:
        damaged.load(folder / "run")
    check_message(str(caught.value), mistake)
    assert listing(folder) == before
