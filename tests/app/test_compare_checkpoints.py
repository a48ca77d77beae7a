"""The arithmetic of checkpoints side by side: differences that can be held against each other, and settings that are not the same."""

import pytest

from app.checkpoints.compare import ABSENT, lines, measures


def measured(columns, base=0, comparable=None):
    return measures(columns, base, comparable or [True] * len(columns))


def test_differences_are_to_the_base_and_the_lowest_loss_is_best():
    (loss,) = measured([{"val_loss": 2.0}, {"val_loss": 1.5}, {"val_loss": 2.25}], base=2)
    assert loss.values == [2.0, 1.5, 2.25]
    assert loss.differences == [-0.25, -0.75, None]
    assert loss.best == 1
    assert [loss.is_better(index) for index in range(3)] == [True, True, None]


def test_a_worse_loss_is_worse_and_an_equal_one_neither():
    (loss,) = measured([{"val_loss": 2.0}, {"val_loss": 2.5}, {"val_loss": 2.0}])
    assert [loss.is_better(index) for index in range(3)] == [None, False, None]
    (equal,) = measured([{"val_loss": 2.0}, {"val_loss": 2.0}])
    assert equal.best is None


def test_of_a_metric_that_is_no_loss_nothing_is_claimed():
    (width,) = measured([{"val_std": 2.0}, {"val_std": 1.0}])
    assert (width.differences, width.best, width.is_better(1)) == ([None, -1.0], None, None)


def test_what_is_missing_or_not_finite_has_no_difference_and_is_not_best():
    loss, extra = measured([{"val_loss": 2.0}, {"val_loss": "NaN", "val_inv": 1.0}, {}])
    assert loss.differences == [None, None, None]
    assert (loss.values[2], loss.best) == (None, None)
    assert (extra.name, extra.values, extra.differences) == ("val_inv", [None, 1.0, None], [None, None, None])


def test_checkpoints_of_other_losses_are_shown_but_not_compared():
    (loss,) = measured([{"val_loss": 2.0}, {"val_loss": 0.1}, {"val_loss": 1.9}], comparable=[True, False, True])
    assert loss.values == [2.0, 0.1, 1.9]
    assert loss.differences == [None, None, pytest.approx(-0.1)]
    assert loss.best == 2


def test_settings_are_flattened_to_dotted_names_and_lists_stay_values():
    found = lines([{"a": 1, "stages": {"vision": {"lr": 1e-4}}, "stage": ["vision"], "empty": {}}])
    assert {line.name: line.values for line in found} == {"a": [1], "stages.vision.lr": [1e-4], "stage": [["vision"]]}


def test_a_setting_differs_when_a_value_does_or_is_missing():
    found = {line.name: line for line in lines([{"a": 1, "b": {"c": None}, "flag": True}, {"a": 1.0, "b": {"c": 2}, "flag": 1, "new": None}])}
    assert {name: line.differs for name, line in found.items()} == {"a": False, "b.c": True, "flag": True, "new": True}
    assert found["new"].values == [ABSENT, None]
    assert [found["b.c"].is_as_base(index, base=1) for index in (0, 1)] == [False, True]
