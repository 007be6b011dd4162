import numpy as np
import pytest

from convjax.train.plan import Plan


def of_epoch(epoch):
    return np.full((5, 2), epoch)


def make(**settings):
    settings = {"epochs": 2, "order": of_epoch, "evaluations": 2, "piece": 2, **settings}
    steps = np.arange(10.0)
    return Plan(table={"learning_rate": steps, "momentum": steps / 16}, **settings)


def test_pieces_equal_values_by_hand():
    """Five steps of an epoch are parts of 3 and 2, which pieces of 2 divide into 2 + 1 and 2."""
    pieces = list(make().pieces(0))
    assert [(p.epoch, p.first, len(p.order), p.evaluated) for p in pieces] == [
        (0, 0, 2, False),
        (0, 2, 1, True),
        (0, 3, 2, True),
        (1, 5, 2, False),
        (1, 7, 1, True),
        (1, 8, 2, True),
    ]
    assert {int(p.order[0, 0]) for p in pieces[3:]} == {1}
    rates = make().rates(pieces[3])
    np.testing.assert_array_equal(rates["learning_rate"], [5, 6])
    np.testing.assert_array_equal(rates["momentum"], [5 / 16, 6 / 16])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 99])
def test_pieces_after_some_steps_are_the_end_of_all_pieces(length):
    whole = list(make(piece=length).pieces(0))
    for taken, piece in enumerate(whole):
        left = list(make(piece=length).pieces(piece.first))
        assert [p.first for p in left] == [p.first for p in whole[taken:]]
    assert list(make(piece=length).pieces(10)) == []


def test_plan_rejects_wrong_arguments():
    for name in ("epochs", "evaluations", "piece"):
        with pytest.raises(ValueError, match=rf"{name} must be at least 1, got 0"):
            make(**{name: 0})
    with pytest.raises(ValueError, match="equally many steps for each of 3 epochs, got 10"):
        make(epochs=3)
    with pytest.raises(ValueError, match="5 batches for each epoch, as the table has, got 4"):
        list(make(order=lambda epoch: np.zeros((4, 2), int)).pieces(0))
    for wrong in (np.zeros(5, int), np.zeros((5, 2, 2), int)):
        for use in (lambda plan: plan.config, lambda plan: list(plan.pieces(0))):
            with pytest.raises(ValueError, match=r"order must have the shape .* got \(5,"):
                use(make(order=lambda epoch, wrong=wrong: wrong))
    with pytest.raises(TypeError, match=r"order must hold indices, whole numbers, got float64"):
        list(make(order=lambda epoch: np.zeros((5, 2))).pieces(0))
    with pytest.raises(ValueError, match="taken must end with a piece of the plan, got 4 steps"):
        list(make().pieces(4))
    with pytest.raises(TypeError, match=r"epochs must be a whole number, got float: 2\.0"):
        make(epochs=2.0)
    with pytest.raises(TypeError, match="order must be"):
        make(order=np.zeros((5, 2)))
    for table in ({}, {"learning_rate": [], "momentum": []}, {"learning_rate": 1.0, "momentum": 1}):
        with pytest.raises(ValueError, match=r"table|learning_rate"):
            Plan(1, of_epoch, table)


def test_pieces_are_multiples_of_the_watched_distance():
    assert [len(piece.order) for piece in make(evaluations=1).pieces(0, every=3)] == [3, 2, 3, 2]


def test_reprs_of_plans_and_pieces():
    assert repr(make()) == "Plan(2 epochs, 10 steps, 2 evaluations in each)"
    assert repr(make(epochs=1, evaluations=1)) == "Plan(1 epoch, 10 steps, 1 evaluation in each)"
    first, second, *_ = make().pieces(0)
    assert repr(first) == "Piece(epoch 0, steps 0 to 1)"
    assert repr(second) == "Piece(epoch 0, steps 2 to 2, then an evaluation)"
