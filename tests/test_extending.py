"""The examples of docs/extending.md: what they compute, and that they run as the page says."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvae.commands.cli import ROOT
from dvae.distributions import all_codes
from dvae.estimators.exact import Exact
from dvae.layers import CategoricalLayer
from dvae.models.bounds import (
    Enumeration,
    exact_log_likelihood,
    log_importance_weights,
    sampled_bound,
)
from dvae.models.objectives import ELBO
from dvae.models.vae import VAE
from dvae.randomness import ImageStreams

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(my_extension/[^`]+)`:\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = re.findall(r"^PYTHONPATH=my_extension python (scripts/\w+\.py) (.*[^…\n])$", PAGE, re.M)
CONFIG_DIR = "--config-dir my_extension/configs "
ADDED = {
    "data": "rectangles",
    "estimator": "identity",
    "likelihood": "logistic",
    "model": "patches",
    "prior": "markov",
    "task": "denoising",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all files of the page."""
    root = tmp_path_factory.mktemp("extending")
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


def _python(folder: Path, *arguments: str, extended: bool = True) -> subprocess.CompletedProcess:
    """Runs Python as the page does: in the folder that holds the extension."""
    inherited = os.environ.get("PYTHONPATH", "")
    paths = [*(["my_extension"] if extended else []), *([inherited] if inherited else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _documented(script: str, *options: str) -> list[str]:
    """The one command of the page that runs a script with these options."""
    [found] = [
        text.split()
        for name, text in COMMANDS
        if name == script and set(options) <= set(text.split())
    ]
    return [str(ROOT / script), *found]


# What the page says, in configurations.


def test_the_page_shows_two_files_and_a_yaml_for_each_kind():
    configs = {name for name in FILES if name.startswith("my_extension/configs/")}
    assert configs == {f"my_extension/configs/{k}/{v}.yaml" for k, v in ADDED.items()}
    modules = [name for name in FILES if name.endswith(".py") and "/tasks/" not in name]
    assert len(modules) == 2 * (len(ADDED) - 1)
    assert {n for n in modules if n.endswith("_options.py")} == {
        f"{name.removesuffix('.py')}_options.py"
        for name in modules
        if not name.endswith("_options.py")
    }
    # Above the files, the page draws the folder.
    tree = PAGE.partition("```\n")[2].partition("```")[0]
    assert all(Path(name).name in tree for name in FILES)


CHECK = """
import json, sys
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.training.config import RunConfig

commands, added = json.loads(sys.argv[1])
shared = ["hydra.searchpath=[file://my_extension/configs]", "paths.output_dir=runs"]
results = {}
for command in commands:
    check(RunConfig, compose("train", [*shared, *command]))
# Coloured images need a likelihood of 8-bit pixels, and this one images that are not binarized.
beside = {"data": ["likelihood=logistic"], "likelihood": ["data.binarization=none"]}
for group, name in added.items():
    values = compose("train", [*shared, f"{group}={name}", *beside.get(group, [])])
    config = check(RunConfig, values)
    if group == "task":
        own = {"drop": type(config).model_fields["drop"].default}
        results[group] = [{"drop": values["drop"]}, own]
    else:
        results[group] = [values[group], type(getattr(config, group))().model_dump()]
assert "torch" not in sys.modules
print(json.dumps(results))
"""


def test_documented_commands_are_accepted_and_yaml_and_defaults_agree(folder):
    commands = [
        text.removeprefix(CONFIG_DIR).split()
        for script, text in COMMANDS
        if script == "scripts/train.py"
    ]
    assert len(commands) == len(ADDED) + 1
    result = _python(folder, "-c", CHECK, json.dumps([commands, ADDED]))
    assert result.returncode == 0, result.stderr
    for group, (values, defaults) in json.loads(result.stdout).items():
        assert values == defaults, group


def test_help_lists_the_new_options(folder):
    script, *arguments = _documented("scripts/train.py", "prior=markov", "data=rectangles")
    result = _python(folder, script, *arguments[:2], "--help")
    assert result.returncode == 0, result.stderr
    for group, name in ADDED.items():
        options, *_ = re.findall(rf"^{group}: (.*)$", result.stdout, re.M)
        assert name in options.split(", ")


def test_typing_errors_are_answered_with_the_new_names(folder):
    script, flag, path, *_ = _documented("scripts/train.py", "prior=markov", "data=rectangles")
    for wrong, meant in (
        (["prior=markovv"], "markov"),
        (["task=denoisin"], "denoising"),
        (["model=patches", "model.pach=3"], "model.patch"),
    ):
        result = _python(folder, script, flag, path, *wrong)
        assert result.returncode == 2
        [line] = result.stderr.strip().splitlines()
        assert line.endswith(f"did you mean {meant}?"), line


# What the page says, in runs.

DRIVER = """
import json, runpy, sys
for arguments in json.loads(sys.argv[1]):
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""

CHECK_ESTIMATOR = """
import torch
from dvae.estimators import ESTIMATORS

estimator = ESTIMATORS["identity"](scale=2.0).build()
logits, cost = torch.randn(5, 3, 4, requires_grad=True), torch.randn(5, 3, 4)
z = estimator.sample(logits, 1.0).z
(z * cost).sum().backward()
assert z.unique().tolist() == [0, 1] and (z.sum(-1) == 1).all()
assert torch.allclose(logits.grad, 2 * cost)
"""


@pytest.fixture(scope="module")
def runs(folder):
    """Two runs of two steps, each evaluated, a drawing and a resumption: in one process."""
    few = ["data.count=300", "data.validation=100"]
    quick = ["debug=fast", "trainer=cpu", "trainer.progress_bar=false", "paths.data_dir=data"]
    evaluation = ["device=cpu", "data_dir=data"]
    estimator = folder / "check_estimator.py"
    estimator.write_text(CHECK_ESTIMATOR)
    together = _documented("scripts/train.py", "prior=markov", "data=rectangles")
    task = _documented("scripts/train.py", "task=denoising")
    # The task with other parts of the page than the first run, and grey pixels drawn as binary.
    others = ["data=rectangles", "data.binarization=dynamic", "model=patches"]
    commands = [
        [str(estimator)],
        [*together, *few, *quick, "hydra.run.dir=together"],
        [*task, *others, *few, *quick, "hydra.run.dir=task"],
    ]
    for name in ("together", "task"):
        checkpoint = f"checkpoint={name}/checkpoints/best.ckpt"
        few_samples = ["num_samples=2", "progress_bar=false"]
        evaluate = str(ROOT / "scripts" / "evaluate.py")
        commands.append([evaluate, checkpoint, *evaluation, *few_samples])
    sample = str(ROOT / "scripts" / "sample.py")
    commands.append([sample, checkpoint, *evaluation, "what=restorations"])
    commands.append([*together[:3], "resume=together"])
    result = _python(folder, "-c", DRIVER, json.dumps(commands))
    assert result.returncode == 0, result.stderr
    # The run to resume is complete.
    assert re.search("together: .*finished", result.stdout.splitlines()[-1])
    return folder


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("together", "test/nll_exact", "test/relaxed_elbo"),
        ("task", "test/relaxed_elbo", "test/nll_exact"),
    ],
)
def test_runs_have_finite_metrics_that_evaluation_repeats(runs, name, own, other):
    metrics = json.loads((runs / name / "metrics.json").read_text())
    assert all(math.isfinite(value) for value in metrics.values())
    assert own in metrics
    assert other not in metrics
    evaluated = json.loads((runs / name / "checkpoints" / "best.test.json").read_text())
    for key, value in evaluated["metrics"].items():
        assert metrics[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


def test_checkpoints_hold_the_options_of_the_extension(runs):
    trained = [
        json.loads((runs / name / "checkpoints" / "best.test.json").read_text())["trained"]
        for name in ("together", "task")
    ]
    groups = [group for group in ADDED if group != "task"]
    assert {group: trained[0][group]["name"] for group in groups} | {"task": "denoising"} == ADDED
    assert (trained[1]["task"], trained[1]["drop"]) == ("denoising", 0.3)


def test_drawing_shows_coloured_images_with_and_without_the_dropped_pixels(runs):
    with Image.open(runs / "task" / "samples" / "restorations.png") as picture:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    # A frame of two pixels around each of 3 × 16 images of 8 × 12.
    assert pixels.shape == (3, 3 * 10 + 2, 16 * 14 + 2)
    rows = pixels[:, 2:, 2:].unfold(1, 8, 10).unfold(2, 12, 14).permute(1, 2, 0, 3, 4)
    whole, damaged, restored = rows
    assert (whole[:, 0] != whole[:, 1]).any()
    dropped = (whole != damaged).any(1)
    assert (damaged.movedim(1, -1)[dropped] == 0).all()
    # In evaluation, the same pixels of all images are dropped: some 30 % of 96.
    assert 0.15 < dropped.any(0).float().mean() < 0.45
    assert not dropped[:, ~dropped.any(0)].any()
    assert (restored != damaged).any()


def test_checkpoints_are_refused_in_one_line_without_the_extension(runs):
    checkpoint = "checkpoint=together/checkpoints/best.ckpt"
    evaluate = str(ROOT / "scripts" / "evaluate.py")
    result = _python(runs, evaluate, checkpoint, "device=cpu", extended=False)
    assert result.returncode == 2
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: checkpoint: ")
    for group, name in ADDED.items():
        assert group == "task" or f"found '{name}'" in line


# What the examples compute, in float64 and by enumeration.


@pytest.fixture(scope="module")
def example(folder):
    """Loads the module of an example by itself: nothing of it stays where others would find it."""

    def execute(name: str, path: Path, patch: pytest.MonkeyPatch):
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def load(name: str):
        path = folder / "my_extension" / "dvae" / name
        options = path.with_name(f"{path.stem}_options.py")
        package = ".".join(["dvae", *Path(name).parent.parts])
        with pytest.MonkeyPatch.context() as patch:
            execute(f"{package}.{options.stem}", options, patch)
            return execute(f"example_{path.stem}", path, patch)

    return load


@pytest.fixture
def vae(example):
    """A model of the examples with 2^6 codes for images of 3 × 4 × 6, far from its start."""
    networks, grid = example("networks/patches.py"), (2, 3)
    torch.manual_seed(0)
    likelihood = example("likelihoods/logistic.py").DiscretizedLogistic(0.3)
    model = VAE(
        networks.PatchEncoder(3, 2, patch=2, hidden=5),
        networks.PatchDecoder(likelihood.channels(3), grid, 2, patch=2, hidden=5),
        CategoricalLayer(1.0, Exact()),
        example("priors/markov.py").MarkovPrior(grid, 2),
        likelihood,
        torch.rand(3, 4, 6),
        base_rates=True,
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.prior.weight += torch.randn_like(model.prior.weight)
    return model


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (3, 3, 4, 6), generator=generator)
    images[:, :, 0] = 0
    images[:, :, 1] = 255
    return images.double() / 255


def _log_weights(vae, images):
    """log w and log q of every code, (64, B)."""
    logits = vae.encode(images)
    codes = all_codes(6, 2).unsqueeze(1).expand(-1, len(images), -1)
    log_q = logits.log_softmax(-1).expand(*codes.shape, -1)
    log_q = log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)
    return log_importance_weights(vae, images, logits, codes), log_q


def _gradients(loss, vae):
    return torch.autograd.grad(loss, list(vae.parameters()), retain_graph=True)


def _pairs(vae, images):
    """The expectation of the importance-weighted bound with two samples, over all pairs, (B,)."""
    log_w, log_q = _log_weights(vae, images)
    bound = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    return ((log_q.unsqueeze(0) + log_q.unsqueeze(1)).exp() * bound).sum((0, 1))


@torch.no_grad()
def test_prior_is_a_markov_chain_over_all_codes(vae):
    prior, codes = vae.prior, all_codes(6, 2)
    log_probs = prior.log_prob(codes)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-12)
    for code, log_prob in zip(codes.tolist(), log_probs.tolist(), strict=True):
        chain = prior.bias[0].log_softmax(-1)[code[0]]
        for n in range(1, 6):
            logits = prior.bias[n] + prior.weight[n - 1][code[n - 1]]
            chain = chain + logits.log_softmax(-1)[code[n]]
        assert log_prob == pytest.approx(chain.item(), abs=1e-12)


@torch.no_grad()
def test_prior_draws_codes_with_their_probabilities(vae):
    count = 20_000
    drawn = vae.prior.sample(count, generator=torch.Generator().manual_seed(0))
    place = (drawn * 2 ** torch.arange(5, -1, -1)).sum(-1)
    found = place.bincount(minlength=64).double()

    def chi_squared(probabilities):
        return ((found - count * probabilities).square() / (count * probabilities)).sum().item()

    # 63 degrees of freedom: above 130 once in a million.
    assert chi_squared(vae.prior.log_prob(all_codes(6, 2)).exp()) < 130
    # The control: other probabilities are told apart.
    assert chi_squared(torch.full((64,), 1 / 64)) > 1000


def test_prior_of_one_latent(example):
    prior = example("priors/markov.py").MarkovPrior((1,), 3)
    assert torch.allclose(prior.log_prob(all_codes(1, 3)), torch.tensor(-math.log(3)))
    assert prior.sample(5).shape == (5, 1)


def _probabilities(location, scale):
    """P(x = v) of the 256 values, from the definition: (M,) → (M, 256)."""
    edges = (torch.arange(1, 256, dtype=torch.float64) - 0.5) / 255
    below = ((edges - location.unsqueeze(-1)) / scale.unsqueeze(-1)).sigmoid()
    ends = below.new_zeros(len(below), 1), below.new_ones(len(below), 1)
    return torch.cat([ends[0], below, ends[1]], -1).diff(dim=-1)


@pytest.fixture
def pixels():
    """Locations and log scales of pixels, the far ones included."""
    location = torch.tensor([0.3, 0.0, 1.0, -0.4, 2.0, 0.5017, 0.5], dtype=torch.float64)
    log_scale = torch.tensor([-2.0, -3.0, -1.0, -1.5, -2.0, -6.5, 3.0], dtype=torch.float64)
    return location, log_scale


@torch.no_grad()
def test_likelihood_gives_probabilities_to_the_values_of_a_pixel(example, pixels):
    likelihood = example("likelihoods/logistic.py").DiscretizedLogistic(0.1)
    location, log_scale = pixels
    parameters = torch.stack([location, log_scale], -1)[:, None, :, None, None]
    values = torch.arange(256, dtype=torch.float64) / 255
    probabilities = likelihood.log_prob(values[:, None, None, None], parameters).exp()
    assert torch.allclose(probabilities.sum(-1), torch.ones_like(location), rtol=0, atol=1e-12)
    assert torch.allclose(probabilities, _probabilities(location, log_scale.exp()))
    means = likelihood.mean(parameters).flatten()
    assert torch.allclose(means, (probabilities * values).sum(-1))


@torch.no_grad()
def test_likelihood_draws_values_with_their_probabilities(example, pixels):
    likelihood, count = example("likelihoods/logistic.py").DiscretizedLogistic(0.1), 20_000
    location, log_scale = pixels
    parameters = torch.stack([location, log_scale], -1)[:, :, None, None]
    generator = torch.Generator().manual_seed(0)
    drawn = likelihood.sample(parameters.expand(count, -1, -1, -1, -1), generator).flatten(1)
    assert torch.equal((255 * drawn).round() / 255, drawn)
    probabilities = _probabilities(location, log_scale.exp())
    codes = (255 * drawn).round().long()
    found = torch.stack([column.bincount(minlength=256) for column in codes.T]) / count
    # The largest distance of distribution functions: above 2 / sqrt(count) once in 1500 draws of a
    # continuous distribution, less often of a discrete one.
    distance = (found - probabilities).cumsum(-1).abs().amax(-1)
    assert (distance < 2 / math.sqrt(count)).all()
    # The control: a shift by two values is seen, where the scale is not many times as large.
    shifted = _probabilities(location + 2 / 255, log_scale.exp())
    assert ((found - shifted).cumsum(-1).abs().amax(-1) > 2 / math.sqrt(count))[[1, 5]].all()


def test_likelihood_is_finite_far_from_the_data(example):
    likelihood = example("likelihoods/logistic.py").DiscretizedLogistic(0.1)
    images = torch.tensor([0.0, 100 / 255, 1.0])[:, None, None, None]
    far = torch.tensor([-1e4, 0.0, 1e4])
    parameters = torch.cartesian_prod(far, far)[:, None, :, None, None].requires_grad_()
    log_prob = likelihood.log_prob(images, parameters)
    assert log_prob.shape == (9, 3)
    assert log_prob.isfinite().all()
    assert (log_prob <= 0).all()
    [gradient] = torch.autograd.grad(log_prob.sum(), parameters)
    assert gradient.isfinite().all()


@torch.no_grad()
def test_exact_likelihood_is_the_sum_over_codes(vae, images):
    enumeration = Enumeration.of(vae)
    assert enumeration.weights is None, "the likelihood has no linear form"
    total = []
    for code in all_codes(6, 2):
        location, log_scale = vae.decode_codes(code).chunk(2)
        table = _probabilities(location.flatten(), log_scale.exp().flatten())
        values = (255 * images).round().long().flatten(1)
        log_px = torch.stack([table.gather(1, v.unsqueeze(-1)).log().sum() for v in values])
        total.append(log_px + vae.prior.log_prob(code))
    expected = torch.stack(total).logsumexp(0)
    assert torch.allclose(exact_log_likelihood(enumeration, images), expected)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_elbo_and_its_exact_gradient_are_the_enumerated_ones(vae, images, beta):
    log_w, log_q = _log_weights(vae, images)
    log_prior = vae.prior.log_prob(all_codes(6, 2)).unsqueeze(-1)
    distortion = log_prior - log_q - log_w
    expected = (log_q.exp() * (distortion + beta * (log_q - log_prior))).sum(0).mean()
    loss = ELBO(1, None)(vae, vae(images), beta)
    assert torch.allclose(loss, expected)
    found, target = _gradients(loss, vae), _gradients(expected, vae)
    for (name, _), own, other in zip(vae.named_parameters(), found, target, strict=True):
        assert own.abs().max() > 1e-6, f"{name} gets no gradient"
        assert torch.allclose(own, other, rtol=1e-8, atol=1e-10), name
    # The control: outside of the cost, the rate has another gradient.
    vae.prior.depends_on_draw = False
    outside = _gradients(ELBO(1, None)(vae, vae(images), beta), vae)
    changed = [
        n
        for n, (a, b) in enumerate(zip(outside, target, strict=True))
        if (a - b).norm() > 0.01 * b.norm()
    ]
    names = [name for name, _ in vae.named_parameters()]
    assert {names[n] for n in changed} >= {"encoder.body.0.weight", "prior.weight"}


@torch.no_grad()
def test_order_of_the_bounds(vae, images):
    log_w, log_q = _log_weights(vae, images)
    elbo, pairs = (log_q.exp() * log_w).sum(0), _pairs(vae, images)
    exact = exact_log_likelihood(Enumeration.of(vae), images)
    assert (elbo < pairs - 1e-3).all()
    assert (pairs < exact - 1e-3).all()
    output = vae(images)
    assert torch.allclose(-(log_q.exp() * (output.distortion + output.rate)).sum(0), elbo)


@torch.no_grad()
def test_sampled_bound_has_the_expectation_over_pairs(vae, images):
    logits = vae.encode(images)
    draws = torch.stack(
        [
            sampled_bound(vae, images, logits, ImageStreams(torch.arange(3), seed), 2)
            for seed in range(500)
        ]
    )
    error = draws.std(0) / math.sqrt(len(draws))
    # Three images: |z| above 4.5 less than once in 40,000 times.
    assert ((draws.mean(0) - _pairs(vae, images)).abs() < 4.5 * error).all()
