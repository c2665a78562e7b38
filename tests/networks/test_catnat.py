"""Logits of binary splits in place of a softmax."""

import math

import pytest
import torch
from hydra.errors import ConfigCompositionException

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.train import train
from dvae.distributions import categorical_kl
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.networks import NETWORKS
from dvae.networks.catnat import Splits
from dvae.training.config import RunConfig

SIZES = [2, 3, 4, 6, 7, 8, 10, 64, 100]


def _leaves(scores):
    """Probabilities of the leaves, by a walk from the root to each."""
    num_categories = len(scores) + 1
    below = dict.fromkeys(range(num_categories, 2 * num_categories), 1)
    for node in range(num_categories - 1, 0, -1):
        below[node] = below[2 * node] + below[2 * node + 1]
    found = []
    for leaf in range(num_categories, 2 * num_categories):
        p, node = 1.0, leaf
        while node > 1:
            parent = node // 2
            odds = math.exp(scores[parent - 1]) * below[2 * parent + 1] / below[2 * parent]
            p *= (odds if node % 2 else 1) / (1 + odds)
            node = parent
        found.append(p)
    return found


@pytest.mark.parametrize("k", SIZES)
def test_the_distribution_is_that_of_a_walk_down_the_tree(k):
    scores = torch.randn(k - 1, dtype=torch.float64)
    log_p = Splits(scores.shape[-1] + 1)(scores)
    assert torch.allclose(log_p.exp(), torch.tensor(_leaves(scores.tolist()), dtype=torch.float64))
    # As logits they are those of a softmax over the same probabilities.
    assert torch.allclose(log_p.softmax(-1), log_p.exp())
    assert Splits(k)(torch.zeros(3, k - 1)).exp().allclose(torch.full((3, k), 1 / k))


@pytest.mark.parametrize("k", SIZES)
def test_every_distribution_can_be_expressed(k):
    """The scores of a distribution, from the odds at each split, lead back to it."""
    target = torch.randn(k, dtype=torch.float64).softmax(-1).tolist()
    below = dict(enumerate(target, k)) | dict.fromkeys(range(1, k), 0.0)
    count = dict.fromkeys(range(k, 2 * k), 1)
    scores = [0.0] * (k - 1)
    for node in range(k - 1, 0, -1):
        left, right = 2 * node, 2 * node + 1
        below[node], count[node] = below[left] + below[right], count[left] + count[right]
        scores[node - 1] = math.log(below[right] / below[left] * count[left] / count[right])
    log_p = Splits(k)(torch.tensor(scores, dtype=torch.float64))
    assert torch.allclose(log_p.exp(), torch.tensor(target, dtype=torch.float64))


@pytest.mark.parametrize("k", [4, 6, 8])
def test_the_fisher_information_of_the_scores_is_diagonal(k):
    scores = torch.randn(k - 1, dtype=torch.float64)
    log_p = Splits(scores.shape[-1] + 1)(scores)
    jacobian = torch.func.jacrev(Splits(k))(scores)
    fisher = jacobian.T @ (log_p.exp().unsqueeze(-1) * jacobian)
    assert torch.allclose(fisher, torch.diag(fisher.diagonal()), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_scores_are_finite(dtype, size):
    scores = torch.full((2, 9), size, dtype=dtype)
    scores[1, ::2] *= -1
    scores.requires_grad_()
    log_p = Splits(scores.shape[-1] + 1)(scores)
    assert log_p.isfinite().all()
    assert torch.allclose(log_p.exp().sum(-1), torch.ones((), dtype=log_p.dtype))
    categorical_kl(log_p, torch.zeros(10)).sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_scores_learn_with_every_estimator(name):
    torch.manual_seed(0)
    layer = CategoricalLayer(1.0, name)
    scores, splits = torch.nn.Parameter(torch.zeros(1, 2, 4)), Splits(5)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    target = torch.arange(5.0)
    for _ in range(100):
        sample = layer.sample(splits(scores).expand(64, 2, 5))
        cost = -(sample.z * target).sum((-2, -1))
        loss = layer.estimator.surrogate(cost, sample)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert splits(scores).exp()[..., 4].min() > 0.9


def _config(tmp_path, data_dir, *overrides):
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path / 'run'}"]
    return check(RunConfig, compose("train", [*own, *overrides]))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_encoder_has_an_output_for_each_split(tmp_path, data_dir, name):
    config = _config(tmp_path, data_dir, f"model={name}", "model.num_categories=3", "logits=catnat")
    vae = config.build_model()
    logits = vae.encode(torch.rand(4, 1, 28, 28))
    assert logits.shape == (4, vae.num_latents, 3)
    assert torch.allclose(logits.exp().sum(-1), torch.ones(()))
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vae.encoder.parameters())


def test_a_run_trains_and_its_checkpoint_is_loaded(tmp_path, data_dir):
    from dvae.tasks.vae.loading import load_vae

    quick = ["debug=fast", "model.hidden=[8]", "logits=catnat", "trainer.progress_bar=false"]
    train(_config(tmp_path, data_dir, *quick))
    module, stored = load_vae(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert stored.logits == "catnat"
    assert torch.allclose(module.vae.encode(torch.rand(2, 1, 28, 28)).exp().sum(-1), torch.ones(()))


def test_it_is_refused_where_there_is_no_such_encoder(tmp_path, data_dir):
    with pytest.raises(UserError, match="logits: .*'softmax' or 'catnat'"):
        _config(tmp_path, data_dir, "logits=sigmoid")
    with pytest.raises(ConfigCompositionException, match="'logits'"):
        _config(tmp_path, data_dir, "task=policy", "logits=catnat")
