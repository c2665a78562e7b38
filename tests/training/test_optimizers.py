import pytest
import torch

from dvae.training import OPTIMIZERS
from dvae.training.optimizers import RAdam, parameter_groups
from dvae.training.optimizers_options import AdamOptions


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_minimises_a_parabola(name):
    model = torch.nn.Linear(1, 1)
    made = OPTIMIZERS[name](lr=0.1, weight_decay=0.0).build(model)
    for _ in range(300):
        loss = ((model.weight - 3) ** 2 + (model.bias + 1) ** 2).sum()
        made.zero_grad()
        loss.backward()
        made.step()
    assert model.weight.item() == pytest.approx(3, abs=0.05)
    assert model.bias.item() == pytest.approx(-1, abs=0.05)


def test_only_matrices_decay(make_config):
    vae = make_config("prior=learned").build_model()
    decayed, others = parameter_groups(vae, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in vae.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 2 for p in decayed["params"])
    assert {"prior.logits", "output_bias"} <= {names[id(p)] for p in others["params"]}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="momentum"):
        OPTIMIZERS["adam"](momentum=1)


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.9, 0.999])
def test_radam_takes_the_steps_of_torch(beta2):
    """To rounding, for an exchanged state, a gradient that is missing at times, and a closure."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (6, 5, 4)]
    runs = []
    for kind in (torch.optim.RAdam, RAdam):
        values = [torch.nn.Parameter(start.clone()) for start in starts]
        groups = [{"params": values[:2], "weight_decay": 0.1}, {"params": values[2:]}]
        runs.append((kind(groups, lr=0.01, betas=(0.9, beta2)), values))
    for step in range(40):
        gradients = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in starts]
        for optimizer, values in runs:
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient.clone()
            values[1].grad = None if 30 <= step < 35 else values[1].grad
            assert optimizer.step(lambda: torch.tensor(2.0)) == 2
        for expected, found in zip(*(values for _, values in runs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
        if step == 25:
            theirs, ours = (optimizer.state_dict() for optimizer, _ in runs)
            runs[0][0].load_state_dict(ours)
            runs[1][0].load_state_dict(theirs)


def test_radam_is_fused(monkeypatch):
    """After its first steps, no step is that of torch."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = RAdam([parameter])
    for step in range(8):
        if step == 6:
            monkeypatch.setattr(torch.optim.RAdam, "step", lambda _: pytest.fail("not fused"))
        before = parameter[0].item()
        parameter.grad = torch.ones(2)
        optimizer.step()
        assert parameter[0] < before


@pytest.mark.parametrize(
    ("schedule", "quarter", "half", "end"),
    [("cosine", 0.853553, 0.5, 0), ("linear", 0.75, 0.5, 0), ("constant", 1, 1, 1)],
)
def test_the_learning_rate_follows_its_schedule(schedule, quarter, half, end):
    options = AdamOptions(lr=1.0, schedule=schedule, warmup=10)
    rate = options.learning_rate(110)
    assert rate(4) == pytest.approx(5 / 11)
    assert rate(10) == 1.0
    assert rate(35) == pytest.approx(quarter)
    assert rate(60) == pytest.approx(half)
    assert rate(110) == pytest.approx(end, abs=1e-12)
