import math

import pytest
import torch

from dvae.distributions import all_codes
from dvae.models.usage import CodeUsage, MutualInformation


@pytest.fixture
def draws():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(50, 3, 4, generator=generator)
    return logits, torch.distributions.Categorical(logits=logits).sample()


@pytest.mark.parametrize("size", [1, 7, 50])
def test_results_do_not_depend_on_the_batch_size(draws, size):
    usage, information = CodeUsage(3, 4), MutualInformation()
    for logits, codes in zip(*(tensor.split(size) for tensor in draws), strict=True):
        usage.update(logits, codes)
        information.update(logits, codes)
    whole, whole_information = CodeUsage(3, 4), MutualInformation()
    whole.update(*draws)
    whole_information.update(*draws)
    assert torch.equal(usage.counts, whole.counts)
    for name, value in whole.compute().items():
        assert torch.allclose(usage.compute()[name], value), name
    assert torch.allclose(information.compute(), whole_information.compute())


def test_perplexity_comes_from_counts_over_the_split():
    usage = CodeUsage(1, 4)
    # Each batch uses one category, the split uses two.
    for k in (0, 1):
        usage.update(torch.zeros(5, 1, 4), torch.full((5, 1), k))
    assert usage.perplexity().tolist() == pytest.approx([2.0])
    assert usage.usage().tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_information_of_noise_and_of_a_label():
    usage = CodeUsage(2, 3)
    labels = torch.arange(30) % 3
    logits = torch.stack([torch.zeros(30, 3), 1e4 * torch.eye(3)[labels]], 1)
    usage.update(logits, torch.stack([labels, labels], 1))
    assert usage.information().tolist() == pytest.approx([0.0, math.log(3)], abs=1e-9)
    assert usage.compute()["active_latents"] == 1


def test_mutual_information_is_rate_minus_divergence_of_the_aggregate(draws):
    """Against I = KL − KL(aggregate ‖ prior), by enumeration."""
    logits = draws[0].double()
    every = all_codes(3, 4)
    log_q = logits.log_softmax(-1)
    joint = sum(log_q[:, n, every[:, n]] for n in range(3))
    aggregate = joint.logsumexp(0) - math.log(50)
    uniform = -3 * math.log(4)
    rate = (joint.exp() * (joint - uniform)).sum(1).mean()
    exact = rate - (aggregate.exp() * (aggregate - uniform)).sum()
    estimates = []
    for seed in range(200):
        torch.manual_seed(seed)
        information = MutualInformation()
        information.update(logits, torch.distributions.Categorical(logits=logits).sample())
        estimates.append(information.compute())
    estimates = torch.stack(estimates)
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - exact) < 4 * error
    assert (estimates <= math.log(50) + 1e-6).all()
    assert abs(rate - exact) > 10 * error, "control: the rate is another value"


def test_masked_categories_leave_all_statistics_finite():
    """They equal those of the categories that are left."""
    generator = torch.Generator().manual_seed(1)
    few = 2 * torch.randn(60, 3, 4, generator=generator)
    codes = torch.distributions.Categorical(logits=few).sample()
    many = torch.cat([few, torch.full((60, 3, 2), -torch.inf)], -1)
    # A category that only some of the images may use.
    many[:30, 0, 3] = -torch.inf
    codes[:30, 0] = 0
    few = many[..., :4]
    found = []
    for logits in (few, many):
        usage, information = CodeUsage(3, logits.shape[-1]), MutualInformation()
        usage.update(logits, codes)
        information.update(logits, codes)
        found.append([*usage.compute().values(), *usage.information(), information.compute()])
    few, many = (torch.stack(values) for values in found)
    assert few.isfinite().all()
    assert torch.allclose(few, many)
