from pathlib import Path

import numpy as np
import pytest
import torch

from dvae import CategoricalLayer, GumbelSoftmax
from dvae.estimators import ESTIMATORS


def test_trains_relaxed_and_evaluates_one_hot():
    torch.manual_seed(0)
    layer, logits = GumbelSoftmax(temperature=1.0), torch.randn(100, 4, 5)
    relaxed = layer(logits)
    assert ((relaxed > 0) & (relaxed < 1)).all()
    hard = layer.eval()(logits)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(hard.sum(-1), torch.ones(100, 4))


def test_temperature_is_in_the_state_dict():
    layer, other = GumbelSoftmax(0.25), GumbelSoftmax(1.0)
    other.load_state_dict(layer.state_dict())
    assert other.temperature.item() == 0.25
    other.set_temperature(2.0)
    assert other.temperature.item() == 2.0
    assert layer.temperature.item() == 0.25


BAD = [0.0, -1.0, float("nan"), float("inf"), 1e-40, 1e39, "0.5", None]


@pytest.mark.parametrize("value", [0.3, 1, np.float32(0.3), torch.tensor(0.3), torch.tensor([2])])
def test_the_temperature_can_be_assigned(value):
    layer = GumbelSoftmax(1)
    layer.temperature = value
    assert layer.temperature.item() == pytest.approx(float(value))
    # An integer at the start does not make it an integer for ever.
    layer.set_temperature(0.25)
    assert layer.temperature.item() == 0.25
    assert "temperature" in layer.state_dict()


@pytest.mark.parametrize("value", BAD)
def test_bad_temperatures_are_refused_wherever_they_are_set(value):
    layer = GumbelSoftmax(0.5)
    attempts = [
        lambda given: setattr(layer, "temperature", given),
        layer.set_temperature,
        GumbelSoftmax,
        lambda given: layer.load_state_dict({"temperature": given}),
        lambda given: torch.nn.Sequential(layer).load_state_dict({"0.temperature": given}),
    ]
    number = isinstance(value, float)
    tensors = [torch.tensor(value, dtype=torch.float64)] if number else []
    for attempt in attempts[: 5 if number else 3]:
        for given in tensors if attempt in attempts[3:] else [value, *tensors]:
            with pytest.raises(ValueError, match="temperature: expected a finite number > 0, foun"):
                attempt(given)
            assert layer.temperature.item() == 0.5


def test_a_temperature_that_was_changed_in_place_is_checked_at_the_next_draw():
    layer = GumbelSoftmax(0.5)
    layer.temperature *= 0.5
    assert layer.temperature.item() == 0.25
    layer.temperature.zero_()
    with pytest.raises(ValueError, match=r"temperature: .* found 0\.0"):
        layer(torch.zeros(2, 3))


def test_the_temperature_can_be_learned():
    layer = GumbelSoftmax(0.5)
    layer.temperature = torch.nn.Parameter(torch.tensor(0.7))
    layer(torch.randn(5, 4, 3))[..., 0].sum().backward()
    assert layer.temperature.grad.abs() > 0
    layer.set_temperature(0.3)
    assert layer.temperature.item() == pytest.approx(0.3)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_estimator_is_a_name_or_an_instance(name):
    for estimator in (name, ESTIMATORS[name]().build()):
        layer = CategoricalLayer(0.5, estimator)
        if ESTIMATORS[name].score_function:
            with pytest.raises(ValueError, match="expected layer.sample and"):
                layer(torch.zeros(3, 4, 5))
            continue
        logits = torch.randn(3, 4, 5, requires_grad=True)
        (layer(logits) * torch.arange(5)).sum().backward()
        assert logits.grad.abs().sum() > 0


def test_hard_gives_one_hot_codes_in_training():
    z = GumbelSoftmax(0.5, hard=True)(torch.randn(10, 4, 5, requires_grad=True))
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert z.requires_grad


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="estimator: expected one of carms, exact, .* found 'x'"):
        CategoricalLayer(1.0, "x")


def test_score_functions_train_through_the_surrogate():
    layer = CategoricalLayer(1.0, "rloo")
    logits = torch.zeros(8, 2, 3, requires_grad=True)
    sample = layer.sample(logits)
    layer.estimator.surrogate(sample.z[..., 0].sum(-1), sample).backward()
    assert logits.grad.abs().sum() > 0
    assert layer.eval()(logits).shape == (8, 2, 3)


def test_a_low_temperature_approaches_one_hot():
    z = GumbelSoftmax(1e-3)(torch.randn(1000, 1, 5))
    assert (z.max(-1).values > 0.99).float().mean() > 0.98


def test_logits_train_through_the_layer():
    torch.manual_seed(0)
    layer = GumbelSoftmax(0.5)
    logits = torch.nn.Parameter(torch.zeros(1, 1, 4))
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(100):
        loss = layer(logits.expand(64, 1, 4))[..., :3].sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.softmax(-1)[0, 0, 3] > 0.9


def test_the_example_of_the_readme_trains():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    examples = [part.split("```")[0] for part in text.split("```python")[1:]]
    [code] = [example for example in examples if "GumbelSoftmax" in example]
    names = {}
    exec(code, names)
    assert names["logits"].grad.abs().max() > 1e-3
    assert names["layer"].temperature == pytest.approx(0.3)
