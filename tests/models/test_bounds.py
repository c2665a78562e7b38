"""Bounds against exact enumeration, in float64."""

import gc
import itertools
import math

import pytest
import torch

from dvae.distributions import all_codes, sample_categorical
from dvae.models.bounds import (
    MAX_DECODES,
    Enumeration,
    chunked_bound,
    decodes_at_once,
    exact_log_likelihood,
    importance_weighted_bound,
    log_importance_weights,
    sampled_bound,
)
from dvae.randomness import ImageStreams


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(6, 1, 28, 28, generator=generator) < 0.3).double()


@pytest.fixture
def shallow_vae(small_vae):
    """A model whose codes explain little, so that importance weights have a moderate variance."""
    with torch.no_grad():
        small_vae.decoder.head.weight *= 0.2
        small_vae.encoder.head.weight *= 0.2
    return small_vae


def _brute_force(vae, images):
    """log p(x) from its definition, one code at a time."""
    log_prior = vae.prior.logits.log_softmax(-1)
    total = []
    for code in all_codes(vae.num_latents, vae.num_categories):
        pixels = torch.distributions.Bernoulli(logits=vae.decode_codes(code))
        log_prob = sum(log_prior[n, k] for n, k in enumerate(code.tolist()))
        total.append(pixels.log_prob(images).sum((1, 2, 3)) + log_prob)
    return torch.stack(total).logsumexp(0)


def _exact(vae, images):
    return exact_log_likelihood(Enumeration.of(vae), images)


def _elbo(vae, images):
    """The ELBO as an exact expectation over all codes."""
    logits = vae.encode(images)
    codes = all_codes(vae.num_latents, vae.num_categories).unsqueeze(1).expand(-1, len(images), -1)
    log_q = logits.log_softmax(-1).expand(*codes.shape, -1)
    q = log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1).exp()
    return (q * log_importance_weights(vae, images, logits, codes)).sum(0)


@torch.no_grad()
def test_exact_likelihood_is_the_sum_over_codes(small_vae, images):
    expected = _brute_force(small_vae, images)
    assert torch.allclose(_exact(small_vae, images), expected)


@torch.no_grad()
def test_exact_likelihood_takes_grey_targets(small_vae):
    grey = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    logits = small_vae.decode_codes(all_codes(3, 4))
    log_px = small_vae.likelihood.log_prob(grey, logits.unsqueeze(1))
    expected = (log_px + small_vae.prior.log_prob(all_codes(3, 4)).unsqueeze(1)).logsumexp(0)
    assert torch.allclose(_exact(small_vae, grey), expected)


@torch.no_grad()
def test_elbo_is_distortion_and_rate(small_vae, images):
    """The expected log weight is −(mean distortion + analytic rate)."""
    logits = small_vae.encode(images)
    codes = all_codes(3, 4)
    log_q = logits.log_softmax(-1).unsqueeze(0).expand(64, -1, -1, -1)
    picked = codes[:, None, :, None].expand(-1, len(images), -1, 1)
    q = log_q.gather(-1, picked).squeeze(-1).sum(-1).exp()
    pixels = small_vae.decode_codes(codes).unsqueeze(1)
    distortion = -(q * small_vae.likelihood.log_prob(images, pixels)).sum(0)
    assert torch.allclose(_elbo(small_vae, images), -(distortion + small_vae.rate(logits, logits)))


@torch.no_grad()
def test_order_of_the_bounds(shallow_vae, images):
    """ELBO ≤ importance-weighted bounds, rising with m, ≤ log p(x)."""
    exact = _exact(shallow_vae, images)
    logits = shallow_vae.encode(images)
    repeats = 150

    def estimate(m):
        draws = torch.stack(
            [
                sampled_bound(shallow_vae, images, logits, ImageStreams(torch.arange(6), seed), m)
                for seed in range(repeats)
            ]
        ).mean(1)
        return draws.mean().item(), draws.std().item() / math.sqrt(repeats)

    values = [estimate(m) for m in (1, 4, 16, 64)]
    elbo = _elbo(shallow_vae, images).mean().item()
    assert abs(values[0][0] - elbo) < 4 * values[0][1]
    assert elbo < exact.mean().item() - 0.1, "the example should have a gap to close"
    for (low, low_error), (high, high_error) in itertools.pairwise(values):
        assert high > low + 2 * math.hypot(low_error, high_error)
    assert values[-1][0] < exact.mean().item()


@torch.no_grad()
def test_bound_equals_the_exact_value_within_its_standard_error(shallow_vae, images):
    m = 100_000
    exact = _exact(shallow_vae, images)
    logits = shallow_vae.encode(images)
    streams = ImageStreams(torch.arange(6), 0)
    codes = sample_categorical(logits, streams.uniform(m, 3))
    # Each of the 64 codes is decoded once; the weights of the draws are looked up.
    every = all_codes(3, 4).unsqueeze(1).expand(-1, 6, -1)
    table = log_importance_weights(shallow_vae, images, logits, every)
    place = (codes * torch.tensor([16, 4, 1])).sum(-1)
    log_weights = table.gather(0, place)
    bound = importance_weighted_bound(log_weights)
    relative = (log_weights - bound).exp()
    standard_error = relative.std(0) / math.sqrt(m)
    assert (standard_error < 0.05).all(), "the example should have small standard errors"
    assert ((bound - exact).abs() < 4.5 * standard_error).all()


@torch.no_grad()
def test_sampled_bound_depends_on_neither_chunks_nor_batches(small_vae, images):
    logits = small_vae.encode(images)

    def bound(rows, max_decodes):
        streams = ImageStreams(torch.arange(6)[rows], 3)
        return sampled_bound(small_vae, images[rows], logits[rows], streams, 50, max_decodes)

    whole = bound(slice(None), 8192)
    assert torch.allclose(bound(slice(None), 13), whole)
    assert torch.allclose(torch.cat([bound(slice(0, 1), 7), bound(slice(1, 6), 100)]), whole)


def test_a_bound_keeps_no_more_of_many_samples_than_of_few():
    kept = []

    def draw(count):
        kept.append(sum(type(o) is torch.Tensor and o.shape == (17,) for o in gc.get_objects()))
        return torch.zeros(count, 17)

    chunked_bound(draw, 10, 1)
    assert len(kept) == 10
    assert kept[9] == kept[4]


def test_too_many_codes_are_refused():
    assert all_codes(4, 8).shape == (4096, 4)
    with pytest.raises(ValueError, match=r"expected at most 16,384 codes, found 10\^20"):
        all_codes(20, 10)


def test_constant_weights_give_their_value():
    assert torch.allclose(importance_weighted_bound(torch.full((7, 2), -3.0)), torch.tensor(-3.0))


def test_fewer_codes_are_decoded_at_once_if_they_have_many_parameters():
    assert decodes_at_once(784) == MAX_DECODES
    assert decodes_at_once(784, 7) == 7
    assert decodes_at_once(10 * 3 * 10 * 32 * 32) * 10 * 3 * 10 * 32 * 32 <= 2**22
    assert decodes_at_once(2**40) == 1
