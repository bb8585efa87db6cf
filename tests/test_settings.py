"""Settings are checked on construction and documented, each of them."""

from dataclasses import fields

import pytest

from dlmp.errors import InputError
from dlmp.settings import LIMITS, LOSS_MODELS, SOFT, Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": "quadratic"}, "must be one of linear, none"),
        ({"limits": "firm"}, "must be one of soft, hard"),
        ({"max_passes": 0}, "must be at least 1"),
        ({"circle_sides": 3}, "must be at least 4"),
        ({"tolerance_pu": 0.0}, "must be above zero"),
        ({"tolerance_usd_per_mwh": -1e-6}, "must be above zero"),
        ({"tolerance_pu": float("nan")}, "must be above zero"),
        ({"time_limit_s": 0.0}, "must be above zero"),
        ({"max_passes": 2.5}, "must be a whole number"),
        ({"circle_sides": "8"}, "must be a whole number"),
        ({"tolerance_pu": "small"}, "must be a number"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(change: dict[str, object], message: str):
    with pytest.raises(InputError) as caught:
        Settings(**change)
    (problem,) = caught.value.problems
    ((field, value),) = change.items()
    assert (problem.element, problem.field, problem.message) == ("settings", field, message)
    assert problem.value is value


def test_all_bad_settings_are_reported_at_once():
    with pytest.raises(InputError, match="3 problems") as caught:
        Settings(losses="", max_passes=-1, tolerance_pu=0.0)
    assert [problem.field for problem in caught.value.problems] == ["losses", "max_passes", "tolerance_pu"]


@pytest.mark.parametrize("losses", LOSS_MODELS)
def test_every_loss_model_is_a_valid_setting(losses: str):
    assert Settings(losses=losses).losses == losses


def test_limits_are_soft_unless_asked_otherwise():
    assert Settings().limits == SOFT
    assert [Settings(limits=limits).limits for limits in LIMITS] == list(LIMITS)


@pytest.mark.parametrize("change", [{"max_passes": 1}, {"circle_sides": 4}, {"tolerance_pu": 1e-300}])
def test_the_smallest_permitted_values_are_permitted(change: dict[str, float]):
    Settings(**change)


def test_every_setting_is_documented():
    assert Settings.__doc__ is not None
    documented = {line.strip() for line in Settings.__doc__.splitlines()}
    assert {field.name for field in fields(Settings)} <= documented
