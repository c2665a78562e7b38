import pytest
import torch

from dvae.models.vae import VAE

MODELS = [
    "model=mlp",
    "model=conv",
    *(f"model.normalization={name}" for name in ("none", "batch", "layer")),
    *(f"model.activation={name}" for name in ("elu", "gelu", "leaky_relu", "relu", "silu", "tanh")),
    "prior=learned",
    "estimator=st_gumbel_softmax",
]


@pytest.fixture(params=MODELS)
def vae(request, make_config) -> VAE:
    torch.manual_seed(0)
    return make_config(request.param).build_model(torch.rand(1, 28, 28))


def test_shapes(vae):
    output = vae(torch.rand(5, 1, 28, 28))
    assert output.sample.z.shape == output.sample.logits.shape == (5, 20, 10)
    assert output.distortion.shape == output.rate.shape == (5,)
    assert (output.distortion > 0).all()
    assert (output.rate >= -1e-5).all()
    assert vae.decode(torch.rand(2, 3, 20, 10)).shape == (2, 3, 1, 28, 28)
    assert vae.decode_codes(torch.zeros(2, 3, 20, dtype=torch.int64)).shape == (2, 3, 1, 28, 28)


def test_every_parameter_gets_a_gradient(vae):
    output = vae(torch.rand(5, 1, 28, 28))
    (output.distortion + output.rate).mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_save_and_load(vae, tmp_path):
    vae(torch.rand(5, 1, 28, 28))
    torch.save(vae.state_dict(), tmp_path / "vae.pt")
    torch.manual_seed(1)
    parts = (vae.encoder, vae.decoder, vae.layer, vae.prior, vae.likelihood)
    other = type(vae)(*parts, torch.rand(1, 28, 28), base_rates=True)
    other.load_state_dict(torch.load(tmp_path / "vae.pt", weights_only=True))
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(vae.eval().encode(images), other.eval().encode(images))


def test_starts_at_the_base_rates(vae):
    assert torch.allclose(
        vae.output_bias.sigmoid(), vae.pixel_mean.clamp(1e-3, 1 - 1e-3), atol=1e-6
    )


def test_codes_and_one_hot_vectors_give_the_same_parameters(vae):
    vae.eval()
    codes = torch.randint(10, (6, 20))
    z = torch.nn.functional.one_hot(codes, 10).float()
    assert torch.equal(vae.decode(z), vae.decode_codes(codes))


def test_log_likelihood_is_that_of_bernoulli_pixels(vae):
    images, logits = torch.rand(3, 1, 28, 28).round(), torch.randn(2, 3, 1, 28, 28)
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(images).sum((2, 3, 4))
    assert torch.allclose(vae.likelihood.log_prob(images, logits), expected, rtol=1e-4)


def test_log_likelihood_keeps_its_precision_under_autocast(vae):
    images, logits = torch.rand(3, 1, 28, 28).round(), torch.randn(3, 1, 28, 28).bfloat16()
    expected = vae.likelihood.log_prob(images, logits.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(vae.likelihood.log_prob(images, logits), expected)


def test_evaluation_mode_does_not_depend_on_the_batch(vae):
    vae(torch.rand(64, 1, 28, 28))
    images = torch.rand(7, 1, 28, 28)
    vae.eval()
    alone = torch.cat([vae.encode(image.unsqueeze(0)) for image in images])
    assert torch.allclose(vae.encode(images), alone, atol=1e-5)


def test_starts_from_zero_without_base_rates(make_config):
    """The encoder's input is not centred and the output bias is 0."""
    mean = torch.rand(1, 28, 28)
    config = make_config("model.hidden=[8]", "model.base_rates=false", "model.normalization=none")
    vae = config.build_model(mean)
    assert not vae.output_bias.any()
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(vae.encode(images), vae.encoder(images))
