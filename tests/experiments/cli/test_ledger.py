"""The ledger's table with one line per claim, and the remarks below it."""

import pytest
from rich.console import Console

from experiments.cli.ledger import closing_table, first_clauses, remarks, short_table
from experiments.harness.claim import Published, Result
from experiments.harness.saved_results import SAVED_RESULTS, read_results


def result(id="one-cycle", verdict="reproduced", **changes):
    entry = {
        "id": id,
        "data": "mnist5k",
        "config": {"layout": "auto"},
        "seeds": (0, 1),
        "published": Published(figures={"train_loss": 0.2, "accuracy": 0.9743}),
        "measured": {"accuracy": [0.95, 0.97]},
        "rule": "r",
        "verdict": verdict,
        "expected": verdict,
        "reason": "every seed trains; as published",
        "seconds": 60.0,
    }
    return Result(**{**entry, **changes})


def row(*of, **changes):
    return list(short_table([result(*of, **changes)]).rows[0])


def test_short_table_shows_the_accuracy_that_the_chapter_publishes():
    shown = "accuracy 0.9600 ± 0.0141"
    assert row() == ["one-cycle", "accuracy 0.9743", shown, "reproduced"]
    published = Published(figures={"accuracy_1": 0.9, "accuracy_2": 0.99, "valid_loss": 0.1})
    assert row(published=published, measured={"accuracy_2": [0.98]})[1:3] == [
        "accuracy_2 0.99",
        "accuracy_2 0.98",
    ]


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"published": Published(picture="p")}, ["a picture", "every seed trains"]),
        ({"published": Published(question="q"), "short": "few"}, ["a question", "few"]),
        ({"published": Published(figures={"rows": 7})}, ["rows 7", "every seed trains"]),
        (
            {"published": Published(figures={"one_call_per_place": "hundreds"})},
            ["hundreds", "every seed trains"],
        ),
        ({"measured": {}}, ["accuracy 0.9743", "every seed trains"]),
    ],
)
def test_short_table_shows_words_where_there_is_no_accuracy(changes, cells):
    long = "every seed trains; and much more than one line of a hundred characters has room for"
    assert row(reason=long, **changes)[1:3] == cells


def test_first_clauses_ends_at_the_best_place_that_fits():
    text = "trains, mostly: at 0.1; and at 0.2"
    assert first_clauses(text, 40) == text
    assert first_clauses(text, 30) == "trains, mostly: at 0.1"
    assert first_clauses(text, 20) == "trains, mostly"
    assert first_clauses(text, 7) == "trains"
    assert first_clauses("4.5 (95 % from 1 to 9)", 12) == "4.5"
    assert first_clauses("many words without an end", 12) == "many words…"


@pytest.mark.parametrize("data", ["mnist", "mnist5k"])
def test_closing_table_has_one_whole_line_of_100_characters_per_claim(data):
    _, results = read_results(SAVED_RESULTS / f"{data}.json")
    console = Console(width=100)
    with console.capture() as captured:
        console.print(closing_table(results))
    heading, *lines = captured.get().splitlines()
    assert heading.split() == ["claim", "published", "measured", "verdict"]
    assert [line.split()[0] for line in lines] == [found.id for found in results]
    assert [line.split()[-1] for line in lines] == [found.verdict for found in results]
    assert "…" not in captured.get()
    assert max(map(len, lines)) <= 100


def test_closing_table_shows_brackets_as_they_are():
    console = Console(width=100)
    with console.capture() as captured:
        console.print(closing_table([result(short="[red]x", published=Published(picture="p"))]))
    assert "[red]x" in captured.get()


def test_remarks_name_departures_and_the_cost_of_what_was_left_out():
    left = result(
        "faster",
        "undecided",
        measured={},
        reason="left out, about 5 min: `run faster --seeds 5`",
        seeds=(0, 1, 2, 3, 4),
    )
    found = remarks([result(expected="refuted"), left, result("schedule")], "out")
    assert found == [
        "2 reproduced, 0 refuted, 1 undecided (1 left out); mnist5k, 2 or 5 seeds; 3 minutes",
        "one-cycle departs: reproduced, expected refuted. every seed trains; as published",
        "Left out were comparisons of dozens of trainings. To decide one, add --out out --resume:",
        "  python -m experiments run faster --seeds 5                 about 5 min",
    ]
    assert len(remarks([result()], "out")) == 1
