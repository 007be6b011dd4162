"""The chapter line by line: the page runs from top to bottom, and says what it prints."""

import re
from pathlib import Path

import matplotlib

PAGE = Path(__file__).parents[1] / "docs/learner.md"


def test_chapter_runs_from_top_to_bottom(capsys):
    cells = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(cells) == 9
    names, printed = {}, []
    for cell in cells:
        exec(compile(cell, "learner.md", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert printed[0] == "True (1, 26, 26, 1)\n"
    assert printed[1] == "(4, 1, 3, 3) (64, 4, 26, 26)\n"
    assert printed[2] == "(64, 1, 28, 28)\n"
    # The chapter's table: 320 fewer shapes and all rows, those without parameters among them.
    summary, table = printed[3].split("epoch", 1)
    rows = [line.split() for line in summary.splitlines()]
    parameters = [row[3] for row in rows if len(row) > 3 and row[1] == "Conv"]
    assert parameters == ["40", "296", "1,168", "4,640", "578"]
    assert "64×4×14×14" in summary
    kinds = [row[1] for row in rows if len(row) > 2]
    assert (kinds.count("ReLU"), kinds.count("Flatten")) == (4, 1)
    assert float(table.splitlines()[2].split()[3]) > 0.9
    assert printed[4] == "(4, 1, 3, 3)\n"
    assert printed[5] == "(64, 28, 28, 1) (64,)\n"
    assert "learning rate" in printed[6]
    assert re.search(r"'valley': 0\.\d+", printed[7])
    assert printed[8].splitlines()[-1] == "True"
    assert not matplotlib.get_backend().lower().startswith("tk")
