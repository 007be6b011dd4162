"""The snippets of docs/pictures.md, run in their order, and what they print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from convjax.data.catalog import DATASET_NAMES

PAGE = (Path(__file__).parents[1] / "docs" / "pictures.md").read_text()


def test_snippets_run_and_print_what_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("dm_pix", reason="PIX is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path))
    names, printed = {}, ""
    for language, text in re.findall(r"```(python|text)\n(.*?)```", PAGE, re.DOTALL):
        if language == "text":
            assert printed == text
            continue
        assert "print(" not in text or text.rstrip().endswith(")")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(text, "docs/pictures.md", "exec"), names)
        printed = output.getvalue()
    assert names["result"].record.steps == 8
    assert len(names["figure"].axes) == 9


def test_page_names_every_data_set():
    assert all(f"`{name}`" in PAGE for name in DATASET_NAMES if name != "mnist5k")
