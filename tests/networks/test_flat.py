"""How networks read codes, centre their features and start."""

import math

import pytest
import torch

from dvae.networks import NETWORKS
from dvae.networks.base import Centre, CodeMap, glorot
from dvae.networks.flat import BottomUpEncoder, GroupedFlatEncoder


@pytest.mark.parametrize("num_categories", [2, 4, 8])
def test_categories_are_the_corners_of_a_hypercube(num_categories):
    read, width = CodeMap(num_categories, "hypercube"), int(math.log2(num_categories))
    assert read.width == width
    corners = read(torch.eye(num_categories).unsqueeze(-2))
    assert corners.shape == (num_categories, width)
    assert (corners.abs() == 1).all()
    assert len(corners.unique(dim=0)) == num_categories
    # Relaxed codes are read as the mean of corners.
    weights = torch.rand(num_categories).softmax(-1)
    assert torch.allclose(read(weights[None]), weights @ corners, atol=1e-6)


def test_one_hot_codes_are_read_as_they_are():
    z = torch.rand(5, 3, 6)
    assert torch.equal(CodeMap(6, "one_hot")(z), z.flatten(1))


def test_a_code_map_is_not_stored():
    assert not CodeMap(4, "hypercube").state_dict()


def test_a_running_mean_is_subtracted_and_frozen_in_evaluation():
    centre, features = Centre(3), torch.randn(2, 5, 3, requires_grad=True)
    mean = features.detach().mean((0, 1))
    first = centre(features)
    assert torch.allclose(centre.mean, 0.1 * mean)
    assert torch.allclose(first, features - 0.1 * mean)
    centre(features)
    assert torch.allclose(centre.mean, 0.19 * mean, atol=1e-6)
    centre.eval()(features + 5)
    assert torch.allclose(centre.mean, 0.19 * mean, atol=1e-6)
    # No gradient passes through the mean.
    first.square().sum().backward()
    assert torch.allclose(features.grad, 2 * first.detach())


def test_glorot_draws_weights_by_the_number_of_inputs_and_outputs():
    torch.manual_seed(0)
    linear = torch.nn.Linear(300, 500)
    glorot(torch.nn.Sequential(linear))
    limit = math.sqrt(6 / 800)
    assert not linear.bias.any()
    assert 0.99 * limit < linear.weight.abs().max() <= limit
    assert linear.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_options_reach_the_networks(name):
    shape = (1, 8, 8)
    kind = NETWORKS[name]
    plain = kind().build_encoder(shape)
    assert not any(isinstance(m, Centre | torch.nn.Dropout) for m in plain.modules())
    options = kind(levels=[6, 4, 2], centered=True, dropout=0.2, init="glorot", num_latents=5)
    encoder, decoder = options.build_encoder(shape), options.build_decoder(shape, 1)
    assert isinstance(encoder, GroupedFlatEncoder)
    assert encoder.places == (slice(0, 2), slice(2, 6), slice(6, 12))
    # One before each draw.
    assert sum(isinstance(m, Centre) for m in encoder.modules()) == 3
    assert any(isinstance(m, torch.nn.Dropout) for m in decoder.modules())
    assert not encoder.encoder.head.bias.any()
    up = kind(levels=[6, 4, 2], inference="bottom_up").build_encoder(shape)
    assert isinstance(up, BottomUpEncoder)
    assert up.places == (slice(6, 12), slice(2, 6), slice(0, 2))
    assert kind(groups=5).build_encoder(shape).places[-1] == slice(16, 20)


def test_a_decoder_may_have_widths_of_its_own():
    options = NETWORKS["mlp"](hidden=[30, 20], decoder_hidden=[7])
    assert options.build_decoder((1, 8, 8), 1).body[0].out_features == 7
    assert NETWORKS["mlp"](hidden=[30, 20]).build_decoder((1, 8, 8), 1).body[0].out_features == 20
