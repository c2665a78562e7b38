"""The comparison of gradient estimators, in float64."""

import csv
import math

import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.gradients import compare_gradients
from dvae.commands.options import GradientsConfig
from dvae.distributions import all_codes, one_hot
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.estimators.exact import Exact
from dvae.models.gradients import compare, draws, signal_to_noise


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(3, 1, 28, 28, generator=generator) < 0.3).double()


def test_exact_gradient_is_that_of_the_expected_distortion(small_vae, images):
    logits = small_vae.encode(images).detach().requires_grad_()
    codes = all_codes(3, 4)
    z = one_hot(codes, 4, torch.float64)
    log_q = (z.unsqueeze(1) * logits.log_softmax(-1)).sum((-2, -1))
    distortion = -small_vae.likelihood.log_prob(images, small_vae.decode(z.unsqueeze(1)))
    (expected,) = torch.autograd.grad((log_q.exp() * distortion).sum(), logits)
    (gradient,) = draws(small_vae, Exact(), logits, images, 1.0, 1)
    assert torch.allclose(gradient, expected)


def test_quality_of_known_estimators(small_vae, images):
    torch.manual_seed(0)
    names = ["exact", "rloo", "straight_through", "gumbel_rao", "st_gumbel_softmax"]
    results = {r.estimator: r for r in compare(small_vae, images, names, [0.5], 200)}
    exact = results["exact"]
    assert exact.bias < 1e-9
    assert exact.variance < 1e-9
    assert exact.cosine == pytest.approx(1)
    assert results["rloo"].bias < 4 * results["rloo"].bias_error
    assert results["straight_through"].bias > 4 * results["straight_through"].bias_error
    assert results["straight_through"].biased
    assert not results["rloo"].biased
    assert not exact.biased
    assert results["gumbel_rao"].variance < results["st_gumbel_softmax"].variance
    rloo = results["rloo"]
    assert rloo.variance_of_a_second == pytest.approx(rloo.variance * rloo.microseconds / 1e6)
    assert math.isnan(results["rloo"].temperature)
    assert results["gumbel_rao"].temperature == 0.5
    assert all(result.microseconds > 0 for result in results.values())


def test_signal_to_noise():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 50, dtype=torch.float64, generator=generator)
    # ‖mean‖² = 50 · 4, total variance 50.
    assert signal_to_noise(noise + 2).item() == pytest.approx(2, rel=0.02)
    assert signal_to_noise(noise).item() < 0.1


def test_script_covers_every_estimator(tmp_path, data_dir):
    overrides = [
        f"paths.data_dir={data_dir}",
        f"paths.output_dir={tmp_path}",
        "num_images=2",
        "num_draws=2",
        "temperatures=[0.5,1.0]",
        "device=cpu",
    ]
    results = compare_gradients(check(GradientsConfig, compose("gradients", overrides)))
    assert {result.estimator for result in results} == set(ESTIMATORS)
    rows = list(csv.DictReader((tmp_path / "gradients.csv").open()))
    assert {row["biased"] for row in rows} <= {"True", "False"}
    assert all(float(row["variance_of_a_second"]) >= 0 for row in rows)
    tempered = sum(kind.uses_temperature for kind in ESTIMATORS.values())
    assert len(rows) == len(results) == len(ESTIMATORS) + tempered
    assert (tmp_path / "gradients.png").stat().st_size > 0


def test_too_many_codes_are_refused(tmp_path, make_config, data_dir):
    from dvae.tasks.vae.module import VAEModule

    config = make_config("model.hidden=[8]")
    module = VAEModule(config.build_model())
    torch.save(
        {"state_dict": module.state_dict(), "config": config.model_dump()}, tmp_path / "big.ckpt"
    )
    overrides = [
        f"checkpoint={tmp_path / 'big.ckpt'}",
        f"paths.data_dir={data_dir}",
        f"paths.output_dir={tmp_path}",
    ]
    with pytest.raises(UserError, match="expected at most 16,384 codes .*, found 10\\^20"):
        compare_gradients(check(GradientsConfig, compose("gradients", overrides)))
