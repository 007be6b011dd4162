"""With how many seeds, and in which form, claims are measured: by their rules alone."""

import pytest

from experiments.cli import registry
from experiments.harness.lab import Lab
from experiments.harness.planned import plan

CLAIMS = registry.find(["chapter"])

# What needs a file or a device that not every machine has.
NEEDS_MORE = {"spreadsheet", "loop-cost"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(out=tmp_path_factory.mktemp("lab"))


def left_out(planned, lab):
    return {p.id for p in planned if p.form(lab.with_seeds(p.seeds)) is None}


@pytest.mark.parametrize("data", ["mnist5k", "mnist"])
def test_plan_of_the_chapter_gives_every_rule_its_seeds(data):
    for planned in plan(CLAIMS, data, None, chapter=True):
        assert planned.seeds == planned.claim.rule(data).min_seeds
        assert planned.brief


def test_plan_of_the_chapter_leaves_at_most_eight_claims_undecided(lab):
    planned = plan(CLAIMS, lab.data, None, chapter=True)
    undecided = left_out(planned, lab)
    assert len(undecided | NEEDS_MORE) <= 8
    # With one seed, as many more lack the seeds of their rules.
    with_one = plan(CLAIMS, lab.data, 1, chapter=True)
    lacking = {p.id for p in with_one if p.seeds < p.claim.min_seeds(lab.data)}
    assert undecided < lacking
    assert len(lacking) == 18
    # What stays out compares dozens of trainings; all else is decided where the machine allows.
    assert all(p.claim.compares for p in planned if p.id in undecided)
    assert not undecided & NEEDS_MORE


def test_plan_of_the_chapter_takes_a_brief_form_where_there_is_one(lab):
    planned = plan(CLAIMS, lab.data, None, chapter=True)
    forms = {p.id: p.form(lab.with_seeds(p.seeds)) for p in planned}
    assert {p.id for p in planned if forms[p.id] not in (None, p.claim.measure)} == {
        "first-kernels",
        "layouts",
        "lr-finder",
        "generalises",
        "faster",
        "batch-size",
        "higher-lr",
        "norm-layers",
    }
    assert forms["linear-net"] is next(c for c in CLAIMS if c.id == "linear-net").measure


@pytest.mark.parametrize(
    ("seeds", "chapter", "quick"), [(5, True, False), (None, True, True), (1, False, False)]
)
def test_plan_takes_the_seeds_that_are_given(seeds, chapter, quick):
    planned = plan(CLAIMS, "mnist5k", seeds, chapter=chapter, quick=quick)
    assert {(p.seeds, p.brief) for p in planned} == {(seeds or 1, False)}


def test_plan_of_named_claims_measures_the_whole_form(lab):
    planned = plan(CLAIMS, lab.data, None, chapter=False)
    assert left_out(planned, lab) == set()
    assert all(p.form(lab.with_seeds(p.seeds)) == p.claim.measure for p in planned)


def test_plan_leaves_comparisons_out_where_the_data_have_no_rule():
    planned = plan(CLAIMS, "photos/", None, chapter=True)
    assert {p.seeds for p in planned if p.claim.rule("photos/") is None} == {1}
