"""Grids of codes: every estimator trains on them, with colour images of any size."""

import pytest
import torch

from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.likelihoods.bernoulli import Bernoulli
from dvae.models.objectives import ELBO
from dvae.models.vae import VAE
from dvae.networks import NETWORKS
from dvae.priors.factorized import UniformPrior

SHAPE = (3, 7, 6)


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
