import numpy as np
import pytest

from tests.mistakes import check_message, damaged, library


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """A folder with what the expressions name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVJAX_DATA_DIR", raising=False)
    library.make_files(tmp_path)
    return tmp_path


def listing(folder):
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


@pytest.mark.parametrize("mistake", library.ROWS, ids=lambda mistake: mistake.what)
def test_in_python(mistake, somewhere):
    before = listing(somewhere)
    with pytest.raises(mistake.kind) as caught:
        library.run(mistake.what)
    assert caught.type.__name__ == mistake.kind.__name__ or mistake.kind is OSError
    check_message(str(caught.value), mistake)
    assert listing(somewhere) == before


def test_nothing_of_it_is_a_mistake_of_its_own():
    """The names that the expressions use work: only what they say is wrong."""
    names = library.names()
    state, record = names["trainer"].run(
        names["trainer"].start(names["network"]), names["images"], names["order"], names["table"]
    )
    assert record.steps == 2
    assert np.isfinite(names["trainer"].evaluate(state, names["images"]).loss)


@pytest.mark.parametrize("mistake", damaged.ROWS, ids=lambda mistake: mistake.what)
def test_damaged_run_folders(mistake, somewhere):
    damaged.make_run(somewhere / "run")
    damaged.DAMAGES[mistake.what](somewhere / "run")
    before = listing(somewhere)
    with pytest.raises(mistake.kind) as caught:
        damaged.load(somewhere / "run")
    check_message(str(caught.value), mistake)
    assert listing(somewhere) == before
