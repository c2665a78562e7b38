"""Grids of codes: every estimator trains on them, with colour images of any size."""

import pytest
import torch

from dvae.distributions import gumbel_noise, one_hot
from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.likelihoods.bernoulli import Bernoulli
from dvae.models.objectives import ELBO
from dvae.models.vae import VAE
from dvae.networks import NETWORKS
from dvae.networks.resnet import CodePlanes
from dvae.priors.factorized import UniformPrior

SHAPE = (3, 7, 6)
LEVELS = [
    "model=resnet",
    "data=cifar10",
    "likelihood=gaussian",
    "data.size=[9,13]",
    "model.downsample=2",
    "model.levels=3",
    "model.channels=6",
    "model.num_categories=4",
]


def _grid_vae(estimator):
    options = NETWORKS["resnet"](
        downsample=4, num_categories=4, embedding_dim=3, channels=6, blocks=1
    )
    return VAE(
        options.build_encoder(SHAPE),
        options.build_decoder(SHAPE, 3),
        CategoricalLayer(1.0, estimator),
        UniformPrior(options.grid(SHAPE), 4),
        Bernoulli(),
        torch.rand(SHAPE),
        base_rates=True,
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_trains_two_steps_on_a_grid(name):
    """Each step changes every weight, that of the codebook included."""
    torch.manual_seed(0)
    vae, images = _grid_vae(name), torch.rand(8, *SHAPE)
    assert vae.num_latents == 4
    optimizer = torch.optim.Adam(vae.parameters(), 1e-2)
    for _ in range(2):
        before = {key: value.detach().clone() for key, value in vae.named_parameters()}
        optimizer.zero_grad()
        loss, distortion, rate = ELBO(1, None).training_pass(vae, images, torch.tensor(1.0))
        loss.backward()
        optimizer.step()
        assert torch.stack([loss, distortion, rate]).isfinite().all()
        for key, value in vae.named_parameters():
            assert value.isfinite().all(), key
            assert (value != before[key]).any(), key


def test_distortion_and_rate_are_sums_over_the_whole_image():
    """Of channels, pixels and codes, in nats: not means over any axis."""
    torch.manual_seed(0)
    vae, images = _grid_vae("straight_through"), torch.rand(5, *SHAPE)
    output = vae(images)
    probabilities = vae.likelihood.mean(vae.decode(output.sample.z)).double()
    each = images * probabilities.log() + (1 - images) * (1 - probabilities).log()
    assert torch.allclose(output.distortion.double(), -each.sum((1, 2, 3)), rtol=1e-4)
    q = vae.encode(images).double().softmax(-1)
    assert torch.allclose(output.rate.double(), (q * (q * 4).log()).sum((1, 2)), atol=1e-4)


@pytest.mark.parametrize("skips", ["true", "false"])
def test_levels_of_grids_of_any_size(skips, make_config):
    """Grids of 5 × 7, 3 × 4 and 2 × 2 codes; each level reads those above, and no code below."""
    config = make_config(*LEVELS, f"model.skips={skips}")
    torch.manual_seed(0)
    vae, images = config.build_model().eval(), torch.rand(2, 3, 9, 13)
    sizes = [place.stop - place.start for place in vae.prior.levels]
    assert sizes == [35, 12, 4]
    logits, codes = vae.draw_codes(vae.encode(images), gumbel_noise((2, 51, 4)))
    assert logits.shape == (2, 51, 4)
    parameters = vae.decode_codes(codes)
    assert torch.allclose(parameters, vae.decode(one_hot(codes, 4, torch.float32)), atol=1e-5)
    for level, place in enumerate(vae.prior.levels):
        changed = codes.clone()
        changed[:, place] = (codes[:, place] + 1) % 4
        reads = level == 0 or skips == "true"
        assert torch.equal(vae.decode_codes(changed), parameters) != reads
        before, after = (
            vae.prior.conditional_logits(one_hot(each, 4, torch.float32))
            for each in (codes, changed)
        )
        for other, below in enumerate(vae.prior.levels):
            reads = other < level if skips == "true" else other == level - 1
            same = torch.allclose(before[..., below, :], after[..., below, :], atol=1e-6)
            assert same != reads, (level, other)


def test_a_code_reaches_the_places_below_it():
    """A code of 2 × 2 stands for rows 4 and 5 and columns 4 to 7 of a grid of 5 × 7."""
    planes = CodePlanes([(2, 2)], (5, 7), 4, 3)
    codes = torch.zeros(4, dtype=torch.int64)
    changed = codes.clone()
    changed[3] = 1
    moved = (planes(codes) != planes(changed)).any(0)
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[4:, 4:] = True
    assert torch.equal(moved, expected)
