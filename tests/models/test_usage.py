import math

import pytest
import torch

from dvae.distributions import all_codes
from dvae.models import usage as usage_module
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


def test_dead_categories_of_each_latent_and_of_a_shared_codebook():
    """Latent 0 uses categories 0 and 1, latent 1 uses 1 and 2; category 3 is dead."""
    codes = torch.tensor([[0, 1], [1, 2]]).repeat(5, 1)
    apart, shared = CodeUsage(2, 4), CodeUsage(2, 4, shared=True)
    for usage in (apart, shared):
        usage.update(torch.zeros(10, 2, 4), codes)
    assert apart.compute()["dead_categories"] == 50
    assert shared.compute()["dead_categories"] == 25
    assert shared.categories().tolist() == [[0.25, 0.5, 0.25, 0.0]]
    entropy = -(0.5 * math.log(0.25) + 0.5 * math.log(0.5))
    assert shared.compute()["codebook_perplexity"].item() == pytest.approx(math.exp(entropy))
    assert "codebook_perplexity" not in apart.compute()


def test_each_level_of_grids_has_a_codebook_of_its_own():
    """Three latents of the first level and one above it, which comes first."""
    levels = [slice(1, 4), slice(0, 1)]
    usage = CodeUsage(4, 4, shared=True, levels=levels)
    usage.update(torch.zeros(2, 4, 4), torch.tensor([[3, 0, 0, 1], [3, 0, 0, 1]]))
    values = usage.compute()
    assert torch.allclose(
        usage.categories(),
        torch.tensor([[2 / 3, 1 / 3, 0, 0], [0, 0, 0, 1]], dtype=torch.float64),
    )
    assert values["dead_categories"] == 100 * 5 / 8
    below = math.exp(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    assert values["codebook_perplexity_1"].item() == pytest.approx(below)
    assert values["codebook_perplexity_2"].item() == pytest.approx(1)
    assert values["codebook_perplexity"].item() == pytest.approx((1 + below) / 2)


def _information(logits, codes, size=7):
    information = MutualInformation()
    for batch in zip(logits.split(size), codes.split(size), strict=True):
        information.update(*batch)
    return information


@pytest.mark.parametrize("scale", [0.0, 8.0])
def test_improbable_categories_are_summed_up(monkeypatch, scale):
    """With 20 of 100 categories stored: uniform and almost certain codes lose nothing."""
    torch.manual_seed(0)
    logits = scale * torch.randn(60, 3, 100)
    codes = torch.distributions.Categorical(logits=logits).sample()
    monkeypatch.setattr(usage_module, "_KEPT", 1000)
    whole = _information(logits, codes)
    monkeypatch.setattr(usage_module, "_KEPT", 20)
    parts = _information(logits, codes)
    assert parts.log_probs[0].shape[-1] == 20
    assert torch.allclose(parts.compute(), whole.compute(), atol=1e-3)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_every_second_image_is_left_out_until_the_rest_fits(monkeypatch, size):
    torch.manual_seed(0)
    logits = torch.randn(60, 3, 4)
    codes = torch.distributions.Categorical(logits=logits).sample()
    monkeypatch.setattr(usage_module, "_MAX_BYTES", 16 * 3 * 4 * 4)
    found = _information(logits, codes, size)
    assert sum(map(len, found.codes)) == 15
    monkeypatch.undo()
    assert torch.equal(found.compute(), _information(logits[::4], codes[::4]).compute())


def test_large_codebooks_take_little_memory():
    """1,024 latents of 8,192 categories: 33 MB an image for the logits, 0.4 MB for what stays."""
    logits = torch.randn(2, 1024, 8192)
    codes = logits.argmax(-1)
    usage, information = CodeUsage(1024, 8192, shared=True), MutualInformation()
    usage.update(logits, codes)
    information.update(logits, codes)
    stored = [t for name in ("log_probs", "indices", "rest") for t in getattr(information, name)]
    assert sum(tensor.nbytes for tensor in stored) < 2 * 2**19
    assert information.compute().item() == pytest.approx(math.log(2), abs=1e-6)
    assert usage.compute()["codebook_perplexity"] > 1000


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
