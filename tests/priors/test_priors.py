"""One contract for all priors, split by property; codes are few enough to enumerate."""

import copy
import math

import pytest
import torch

from dvae.distributions import all_codes, one_hot
from dvae.priors import PRIORS
from dvae.priors.base import Prior

K = 3
GRIDS = [(3,), (2, 2)]
TRAINABLE = [name for name, kind in PRIORS.items() if list(kind().build((2,), 2).parameters())]


def _build(name, grid):
    """A small prior whose parameters, if it has any, are not those of its start."""
    kind = PRIORS[name]
    small = {"width": 16} if "width" in kind.model_fields else {}
    prior = kind(**small).build(grid, K)
    generator = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        # Sums over wide layers keep a scale of about 1.
        std = parameter.shape[-1] ** -0.5
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return prior


@pytest.fixture(params=GRIDS, ids=str)
def grid(request):
    return request.param


@pytest.fixture(params=sorted(PRIORS))
def prior(request, grid):
    return _build(request.param, grid)


@pytest.fixture(params=TRAINABLE)
def trainable(request, grid):
    return _build(request.param, grid)


def _codes(prior):
    return all_codes(prior.num_latents, K)


def _largest_z(prior, codes):
    """The largest distance of the frequency of a code from its probability, in standard errors."""
    place = codes @ torch.tensor([K**n for n in reversed(range(prior.num_latents))])
    counts = torch.bincount(place, minlength=K**prior.num_latents).double()
    n, p = len(codes), prior.log_prob(_codes(prior)).detach().double().exp()
    return ((counts - n * p) / (n * p * (1 - p)).sqrt()).abs().max()


def test_shapes(prior, grid):
    assert prior.grid == grid
    assert prior.num_latents == math.prod(grid)
    assert prior.num_categories == K
    codes = torch.randint(K, (2, 5, prior.num_latents))
    assert prior.log_prob(codes).shape == (2, 5)
    z = one_hot(codes, K)
    assert torch.broadcast_shapes(prior.conditional_logits(z).shape, z.shape) == z.shape
    drawn = prior.sample(7)
    assert drawn.shape == (7, prior.num_latents)
    assert drawn.dtype == torch.int64


def test_probabilities_sum_to_one(prior):
    assert prior.log_prob(_codes(prior)).logsumexp(0).item() == pytest.approx(0, abs=1e-5)


def test_log_prob_follows_from_the_conditional_logits(prior):
    codes = _codes(prior)
    assert torch.allclose(Prior.log_prob(prior, codes), prior.log_prob(codes), atol=1e-6)


def test_conditional_logits_depend_on_earlier_latents_only(prior):
    z = one_hot(_codes(prior), K)
    logits = prior.conditional_logits(z).expand_as(z)
    depends = False
    for n in range(prior.num_latents):
        changed = z.clone()
        changed[:, n] = z[:, n].roll(1, -1)
        other = prior.conditional_logits(changed).expand_as(z)
        assert torch.equal(other[:, : n + 1], logits[:, : n + 1])
        depends |= not torch.equal(other, logits)
    assert depends is prior.depends_on_draw


def test_samples_follow_the_probabilities(prior):
    n = 40_000
    codes = prior.sample(n, generator=torch.Generator().manual_seed(0))
    # At most 81 codes within 4.5 standard errors: a false alarm once in 1,000 seeds.
    assert _largest_z(prior, codes) < 4.5
    # Control: a sampler that returns the code 0 a little too often fails.
    codes[: n // 20] = 0
    assert _largest_z(prior, codes) > 4.5


def test_ancestral_samples_follow_the_probabilities(prior):
    """The sampler of the base class."""
    codes = Prior.sample(prior, 40_000, generator=torch.Generator().manual_seed(1))
    assert _largest_z(prior, codes) < 4.5


def test_the_first_codes_can_be_given(prior):
    first = torch.arange(7).unsqueeze(-1) % K
    codes = prior.sample(7, first=first)
    assert torch.equal(codes[:, :1], first)
    everything = _codes(prior)
    assert torch.equal(prior.sample(len(everything), first=everything), everything)


def test_a_low_temperature_draws_the_most_probable_categories(prior):
    generator = torch.Generator().manual_seed(0)
    codes = prior.sample(50, temperature=1e-4, generator=generator)
    logits = prior.conditional_logits(one_hot(codes, K)).expand(*codes.shape, -1)
    chosen = logits.gather(-1, codes.unsqueeze(-1)).squeeze(-1)
    # Equal logits stay equal.
    assert torch.allclose(chosen, logits.amax(-1), atol=0.01)


def test_samples_are_reproducible_by_their_generator(prior):
    first, again, other = (
        prior.sample(50, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_parameter_gets_a_gradient(trainable):
    trainable.log_prob(_codes(trainable)[:5]).sum().backward()
    for name, parameter in trainable.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_save_and_load(trainable, tmp_path):
    torch.save(trainable.state_dict(), tmp_path / "prior.pt")
    other = copy.deepcopy(trainable)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(torch.load(tmp_path / "prior.pt", weights_only=True))
    codes = _codes(trainable)
    assert torch.equal(other.log_prob(codes), trainable.log_prob(codes))


def test_uniform_has_the_log_of_the_number_of_codes():
    prior = PRIORS["uniform"]().build((4, 5), 10)
    codes = torch.randint(10, (2, 5, 20))
    assert torch.allclose(prior.log_prob(codes), torch.tensor(-20 * math.log(10)))
    assert not list(prior.parameters())


def test_learned_starts_uniform():
    prior = PRIORS["learned"]().build((2,), 3)
    assert torch.allclose(prior.log_prob(all_codes(2, 3)), torch.tensor(-2 * math.log(3)))
