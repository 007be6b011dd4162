"""Figures that a text quotes, and the saved results of the claims that it names."""

import json
import re
from pathlib import Path

from experiments.cli import ledger
from experiments.harness.claim import Result

RESULTS = Path(__file__).parents[1] / "experiments/results"

# What follows "*Measured:*" in a paragraph, and in it what precedes each name of claims.
MEASURED = re.compile(r"\*Measured:\*\s(.*?)(?=\n\n|\Z)", re.S)
PART = re.compile(r"(.*?)\(claims? ([a-z0-9-]+(?:, [a-z0-9-]+)*)\)", re.S)
# The results that hold the figures of a part which says on which images they were measured.
DATA = {"MNIST": "mnist", "these digits": "mnist5k"}
ALL_DATA = ("mnist", "mnist5k", "residual")


def figures(text):
    """The numbers in a text, without signs and separators of thousands."""
    return [found.replace(",", "") for found in re.findall(r"\d[\d.,]*\d|\d", text)]


def saved_claims(*names):
    """The results of claims in the files of these names; a list per id."""
    found = {}
    for name in names:
        for claim in json.loads((RESULTS / f"{name}.json").read_text())["claims"]:
            found.setdefault(claim["id"], []).append(claim)
    return found


def measured_figures(claim):
    """The figures in a result's reason, and those of the ledger."""
    _, measured = ledger.figures(Result.from_json(claim))
    return {*figures("\n".join([claim["reason"], *measured.values()]))}


def unmeasured(text):
    """The figures after "*Measured:*" that no claim named behind them has, with what is around.

    Every figure must precede the name of a claim, such as "(claim batch-size)".
    """
    wrong = []
    for paragraph in MEASURED.findall(text):
        for part, names in PART.findall(paragraph):
            data = [name for words, name in DATA.items() if words in " ".join(part.split())]
            assert len(data) <= 1, f"a part must name one set of images: {part}"
            saved = saved_claims(*(data or ALL_DATA))
            known = set()
            for name in names.split(", "):
                assert name in saved, f"no claim {name} is saved: {part}"
                known |= set().union(*(measured_figures(claim) for claim in saved[name]))
            wrong += [(figure, part) for figure in figures(part) if figure not in known]
        rest = PART.sub("", paragraph)
        wrong += [(figure, rest) for figure in figures(rest)]
    return wrong
