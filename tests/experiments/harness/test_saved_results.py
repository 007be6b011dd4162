import pytest

from experiments.cli import registry
from experiments.harness.rules import SHORT, Decision, NotMeasuredError
from experiments.harness.saved_results import SAVED_RESULTS, read_results


def decided(rule, measured):
    """Returns the decision, and whether this machine can make it."""
    try:
        return rule.decide(measured), True
    except NotMeasuredError as error:
        return Decision(None, str(error)), False


@pytest.mark.parametrize(
    ("name", "data", "group"),
    [
        ("mnist", "mnist", "chapter"),
        ("mnist5k", "mnist5k", "chapter"),
        ("residual", "cifar10", "residual"),
    ],
)
def test_saved_results_follow_the_current_rules(name, data, group):
    """A changed rule needs a new measurement, and a changed figure a new verdict."""
    _, results = read_results(SAVED_RESULTS / f"{name}.json")
    claims = registry.find([group])
    assert [result.id for result in results] == [claim.id for claim in claims]
    for claim, result in zip(claims, results, strict=True):
        rule = claim.rule(data)
        assert (result.data, result.published, result.rule) == (data, claim.published, rule.text)
        assert result.verdict == result.expected
        if result.measured:
            decision, decidable = decided(rule, result.measured)
            assert result.expected == (rule.expected if decidable else "undecided")
            verdict = {True: "reproduced", False: "refuted", None: "undecided"}[decision.holds]
            assert (result.verdict, result.reason) == (verdict, decision.reason)
            assert result.short == decision.short
            assert len(decision.short) <= SHORT
