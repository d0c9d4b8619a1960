import pytest

from forage.errors import ConfigError
from forage.learners.schedule import Schedule


def test_warmup_rises_to_one_and_never_wastes_the_first_update():
    schedule = Schedule("constant", warmup_steps=4)
    assert [schedule.factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_linear_reaches_zero_when_the_run_is_over():
    schedule = Schedule("linear", warmup_steps=0, total_steps=4)
    assert [schedule.factor(step) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]


def test_cosine_is_half_way_down_in_the_middle():
    schedule = Schedule("cosine", warmup_steps=2, total_steps=6)
    assert [schedule.factor(step) for step in range(7)] == pytest.approx(
        [0.5, 1, 1, 0.853553, 0.5, 0.146447, 0], abs=1e-6
    )


def test_a_decay_needs_steps_to_decay_over():
    with pytest.raises(ConfigError, match="total_steps above warmup_steps"):
        Schedule("linear", warmup_steps=10, total_steps=10)
