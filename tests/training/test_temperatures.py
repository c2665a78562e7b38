"""The options of temperature schedules check their ranges; the schedules themselves do not."""

import pytest

from dvae.schedules import Linear
from dvae.training import TEMPERATURES

NAN = float("nan")
ANNEALED = ["cosine", "exponential", "linear"]


@pytest.mark.parametrize("name", ANNEALED)
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"initial": 0.5, "minimum": 1.0}, "temperature.minimum: expected at most"),
        ({"initial": 0.0}, "initial"),
        ({"minimum": 0.0}, "minimum"),
        ({"update_every": 0}, "update_every"),
        *(({"steps": steps}, "steps") for steps in (-1, -0.5, 1.5, NAN)),
    ],
)
def test_values_out_of_range_are_refused(name, options, field):
    with pytest.raises(ValueError, match=field):
        TEMPERATURES[name](**options)


@pytest.mark.parametrize("rate", [-1.0, NAN, float("inf")])
def test_decay_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        TEMPERATURES["exponential"](rate=rate, steps=None)


@pytest.mark.parametrize(("rate", "steps"), [(None, None), (1e-4, 100)])
def test_exponential_takes_either_a_rate_or_steps(rate, steps):
    with pytest.raises(ValueError, match="temperature.rate, temperature.steps: expected"):
        TEMPERATURES["exponential"](rate=rate, steps=steps)


@pytest.mark.parametrize("name", ANNEALED)
def test_limits_are_accepted(name):
    options = TEMPERATURES[name](initial=0.5, minimum=0.5, update_every=1, steps=0)
    assert options.schedule(100)(0) == options.start == 0.5


def test_steps_are_a_count_or_a_fraction_of_the_run():
    for steps in (50, 0.5):
        schedule = TEMPERATURES["linear"](initial=2.0, minimum=1.0, steps=steps).schedule(100)
        assert schedule == Linear(2.0, 1.0, steps=50)
