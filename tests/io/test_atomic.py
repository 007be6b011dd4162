from pathlib import Path

import pytest
from matplotlib.figure import Figure

from convjax.io.atomic import atomic_write, partial_files, save_figure


def test_atomic_write_replaces_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old and long")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old and long"
    assert path.read_bytes() == b"new"


def test_atomic_write_keeps_the_old_file_after_an_exception(tmp_path):
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


def test_partial_files_are_those_of_killed_processes(tmp_path):
    with atomic_write(tmp_path / "a.txt") as file:
        assert partial_files(tmp_path) == [Path(file.name)]
    for name in (".a.txt.12.partial", "b.txt.12.partial", ".c.partial", ".d.12.partial.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".tensorboard.12.partial").mkdir()
    assert partial_files(tmp_path) == [tmp_path / ".a.txt.12.partial"]
    assert partial_files(tmp_path / "none") == []


def test_save_figure_makes_the_folder(tmp_path):
    path = tmp_path / "plots" / "name.png"
    save_figure(Figure((1, 1)), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["name.png"]
