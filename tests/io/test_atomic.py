from pathlib import Path

import pytest

from convjax.io.atomic import atomic_write, partial_files, save_figure
from convjax.plots import new_figure


def test_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old and long")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old and long"
    assert path.read_bytes() == b"new"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_process_leaves(tmp_path):
    with atomic_write(tmp_path / "a.txt") as file:
        assert partial_files(tmp_path) == [Path(file.name)]
    for name in (".a.txt.12.partial", "b.txt.12.partial", ".c.partial", ".d.12.partial.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".tensorboard.12.partial").mkdir()
    assert partial_files(tmp_path) == [tmp_path / ".a.txt.12.partial"]
    assert partial_files(tmp_path / "none") == []


def test_a_figure_is_saved_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "plots" / "name.png"
    save_figure(new_figure(1, 1), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["name.png"]
