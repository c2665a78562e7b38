"""One contract for all encoders and decoders, split by property."""

import math

import pytest
import torch

from dvae.errors import UserError
from dvae.networks import NETWORKS

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 20, 36)]


@pytest.fixture(params=sorted(NETWORKS))
def options(request):
    return NETWORKS[request.param]()


@pytest.fixture(params=SHAPES, ids=str)
def image_shape(request):
    return request.param


@pytest.fixture
def encoder(options, image_shape):
    torch.manual_seed(0)
    return options.build_encoder(image_shape)


@pytest.fixture(params=[1, 6])
def channels(request):
    return request.param


@pytest.fixture
def decoder(options, image_shape, channels):
    torch.manual_seed(0)
    return options.build_decoder(image_shape, channels)


def _images(image_shape, count=5):
    return torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(1))


def _codes(options, image_shape, *leading):
    """Relaxed codes (..., N, K)."""
    num_latents = math.prod(options.grid(image_shape))
    logits = torch.randn(*leading, num_latents, options.num_categories)
    return logits.softmax(-1)


def _assert_gradients(network, output):
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (output * weights).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def _assert_restores(network, other, inputs, path):
    """Saves a network after a training step's forward pass and loads it into another one."""
    network(inputs)
    torch.save(network.state_dict(), path)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 1
    assert not torch.allclose(network.eval()(inputs), other.eval()(inputs))
    other.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(network(inputs), other(inputs))


def _assert_batch_independent(network, inputs):
    """In evaluation mode an output depends on its own input only."""
    network.train()(inputs)
    together = network.eval()(inputs)
    alone = torch.cat([network(one.unsqueeze(0)) for one in inputs])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_encoder_shapes(options, image_shape, encoder):
    options.check_images(image_shape)
    logits = encoder(_images(image_shape))
    assert logits.shape == (5, math.prod(options.grid(image_shape)), options.num_categories)
    assert logits.isfinite().all()


def test_decoder_shapes(options, image_shape, channels, decoder):
    for leading in [(5,), (2, 5), (3, 1, 2)]:
        parameters = decoder(_codes(options, image_shape, *leading))
        assert parameters.shape == (*leading, channels, *image_shape[1:])
        assert parameters.isfinite().all()


def test_decoder_axes_are_independent(options, image_shape, decoder):
    decoder.eval()
    z = _codes(options, image_shape, 2, 3)
    each = torch.stack([decoder(one) for one in z])
    assert torch.allclose(decoder(z), each, rtol=1e-4, atol=1e-5)


def test_every_encoder_parameter_gets_a_gradient(image_shape, encoder):
    _assert_gradients(encoder, encoder(_images(image_shape)))


def test_every_decoder_parameter_gets_a_gradient(options, image_shape, decoder):
    _assert_gradients(decoder, decoder(_codes(options, image_shape, 5)))


def test_encoder_is_saved_and_loaded(options, image_shape, encoder, tmp_path):
    other = options.build_encoder(image_shape)
    _assert_restores(encoder, other, _images(image_shape), tmp_path / "encoder.pt")


def test_decoder_is_saved_and_loaded(options, image_shape, channels, decoder, tmp_path):
    other, z = options.build_decoder(image_shape, channels), _codes(options, image_shape, 5)
    _assert_restores(decoder, other, z, tmp_path / "decoder.pt")


def test_encoder_in_evaluation_mode(image_shape, encoder):
    _assert_batch_independent(encoder, _images(image_shape))


def test_decoder_in_evaluation_mode(options, image_shape, decoder):
    _assert_batch_independent(decoder, _codes(options, image_shape, 5))


@pytest.mark.parametrize("image_shape", [(1, 30, 28), (1, 28, 30)], ids=str)
def test_conv_refuses_sides_that_are_not_multiples_of_4(image_shape):
    _, height, width = image_shape
    message = f"data.size: expected multiples of 4, .* found {height} × {width} pixels"
    with pytest.raises(UserError, match=message):
        NETWORKS["conv"]().check_images(image_shape)


def test_gradients_of_logits_sum_to_zero_over_categories_in_half_precision(encoder, image_shape):
    images = _images(image_shape)
    with torch.autocast("cpu", torch.bfloat16):
        logits = encoder(images)
        # No function of the probabilities changes if all logits of a latent shift.
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
        (weights * logits.softmax(-1)).sum().backward()
    assert logits.dtype == torch.float32
    gradient = list(encoder.parameters())[-1].grad.view(-1, logits.shape[-1])  # of the last bias
    assert gradient.abs().max() > 0.01
    assert gradient.sum(-1).abs().max() < 1e-5
