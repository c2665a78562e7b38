import math

import pytest
import torch

from dvae.distributions import all_codes
from dvae.priors import PRIORS


@pytest.fixture(params=sorted(PRIORS))
def prior(request):
    prior = PRIORS[request.param]().build((3,), 4)
    if request.param == "learned":
        torch.nn.init.normal_(prior.logits, generator=torch.Generator().manual_seed(0))
    return prior


@torch.no_grad()
def test_probabilities_sum_to_one(prior):
    log_probs = prior.log_prob(all_codes(3, 4))
    assert log_probs.shape == (64,)
    assert log_probs.logsumexp(0).item() == pytest.approx(0, abs=1e-5)


@torch.no_grad()
def test_samples_follow_the_probabilities(prior):
    n = 40_000
    codes = prior.sample(n, generator=torch.Generator().manual_seed(0))
    assert codes.shape == (n, 3)
    counts = torch.stack([(codes == k).double().sum(0) for k in range(4)], -1)
    p = prior.logits.double().softmax(-1)
    assert ((counts - n * p) / (n * p * (1 - p)).sqrt()).abs().max() < 4.5


def test_uniform_has_the_log_of_the_number_of_codes():
    prior = PRIORS["uniform"]().build((4, 5), 10)
    codes = torch.randint(10, (2, 5, 20))
    assert torch.allclose(prior.log_prob(codes), torch.tensor(-20 * math.log(10)))
    assert not list(prior.parameters())


def test_learned_starts_uniform_and_learns():
    prior = PRIORS["learned"]().build((2,), 3)
    assert torch.allclose(prior.log_prob(all_codes(2, 3)), torch.tensor(-2 * math.log(3)))
    prior.log_prob(torch.tensor([[0, 1]])).sum().backward()
    assert prior.logits.grad.abs().sum() > 0
