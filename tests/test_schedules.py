import itertools
import math

import pytest

from dvae.schedules import (
    Constant,
    Cosine,
    Delayed,
    Exponential,
    Linear,
    Warmup,
    WarmupThen,
    resolve_steps,
)

ANNEALED = {
    "exponential": Exponential.over(2.0, 0.5, steps=100),
    "linear": Linear(2.0, 0.5, steps=100),
    "cosine": Cosine(2.0, 0.5, steps=100),
}


@pytest.mark.parametrize("schedule", ANNEALED.values(), ids=ANNEALED)
def test_ends_and_monotony(schedule):
    values = [schedule(step) for step in range(200)]
    assert values[0] == 2.0
    assert values[100] == pytest.approx(0.5, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(values[:101]))
    assert all(value == pytest.approx(0.5, abs=1e-12) for value in values[100:])


@pytest.mark.parametrize("schedule", ANNEALED.values(), ids=ANNEALED)
def test_pure_function_of_the_step(schedule):
    assert [schedule(s) for s in (70, 3, 70)] == [schedule(70), schedule(3), schedule(70)]


def test_exponential_is_the_formula_of_the_paper():
    schedule = Exponential(1.0, 0.5, update_every=1000, rate=1e-4)
    assert schedule(0) == schedule(999) == 1.0
    assert schedule(1000) == schedule(1999) == math.exp(-0.1)
    assert schedule(6000) == pytest.approx(math.exp(-0.6))
    assert schedule(7000) == 0.5


@pytest.mark.parametrize("ramp", [Linear, Cosine])
def test_update_every_holds_the_value(ramp):
    held, smooth = ramp(1.0, 0.0, update_every=10, steps=100), ramp(1.0, 0.0, steps=100)
    assert all(held(s) == smooth(s - s % 10) for s in range(150))


def test_zero_steps_is_the_minimum_from_the_start():
    assert Linear(1.0, 0.5, steps=0)(0) == Cosine(1.0, 0.5, steps=0)(0) == 0.5


def test_constant_and_warmup():
    assert Constant(0.7)(0) == Constant(0.7)(10**9) == 0.7
    assert [Warmup(2.0, 4)(s) for s in range(6)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert Warmup(2.0, 0)(0) == 2.0


def test_delayed_rises_to_one_at_the_end():
    late = Delayed(0.2, delay=4, total=8)
    assert [round(late(step), 6) for step in (0, 4, 5, 6, 8, 9)] == [0.2, 0.2, 0.4, 0.6, 1.0, 1.0]
    assert Delayed(0.2, delay=9, total=8)(8) == 0.2


def test_warmup_then_a_fall():
    rate = WarmupThen(0.2, warmup=10, then=Cosine(0.2, 0.0, steps=100))
    assert 0 < rate(0) < rate(9) < 0.2
    assert rate(10) == 0.2
    assert rate(60) == pytest.approx(0.1)
    assert rate(110) == pytest.approx(0.0, abs=1e-12)
    flat = WarmupThen(0.2, warmup=0, then=Constant(0.2))
    assert [flat(s) for s in range(120)] == pytest.approx([0.2] * 120, rel=1e-12)


def test_resolve_steps():
    assert resolve_steps(0.25, 1000) == 250
    assert resolve_steps(1.0, 1000) == 1000
    assert resolve_steps(1, 1000) == 1
    assert resolve_steps(0, 1000) == resolve_steps(0.0, 1000) == 0
