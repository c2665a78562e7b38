"""The off-policy actor-critic, against closed forms and hand-made transitions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.errors import DivergedError, UserError
from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.tasks.policy.model import ActorCritic, Transitions
from dvae.tasks.policy.replay import Replay
from dvae.training.config import RunConfig

pytest.importorskip("gymnasium")

from dvae.tasks.policy.environments import Episodes, make_environment, play

D, A = 3, 4


def _model(estimator="st_gumbel_softmax", **options):
    torch.manual_seed(0)
    own = {"discount": 0.99, "entropy_weight": 1.0, **options}
    model = ActorCritic(D, A, CategoricalLayer(1.0, estimator), hidden=[8], **own).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return model


def _transitions(count=5, terminated=0.0):
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(2, count, D, generator=generator, dtype=torch.float64)
    return Transitions(
        observations[0],
        torch.randint(A, (count,), generator=generator),
        torch.randn(count, generator=generator, dtype=torch.float64),
        observations[1],
        torch.full((count,), terminated, dtype=torch.float64),
    )


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_critic_loss(terminated):
    """Matches explicit loops; no reward follows a termination."""
    model, batch = _model(discount=0.9, entropy_weight=0.2), _transitions(terminated=terminated)
    errors = []
    for s, a, r, after, end in zip(*batch, strict=True):
        policy = model.logits(after).softmax(-1)
        values = [target(after) for target in model.targets]
        soft = sum(p * (min(v[k] for v in values) - 0.2 * p.log()) for k, p in enumerate(policy))
        goal = r + 0.9 * (1 - end) * soft
        errors += [(critic(s)[a] - goal) ** 2 for critic in model.critics]
    assert model.critic_loss(batch).item() == pytest.approx(sum(errors).item() / len(errors))


@pytest.mark.parametrize("estimator", ["straight_through", "reinmax", "reinforce", "rloo", "carms"])
def test_the_actor_gradient_is_unbiased(estimator):
    """The critics are linear in z, so straight-through is unbiased, as are score functions."""
    model, states = _model(estimator, entropy_weight=0.3), _transitions(3).observations
    parameters = list(model.actor.parameters())
    policy = model.logits(states).softmax(-1)
    values = torch.minimum(*(critic(states) for critic in model.critics)).detach()
    entropy = -(policy * policy.log()).sum(-1)
    expected = -((policy * values).sum(-1) + 0.3 * entropy).mean()
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(expected, parameters)])
    many, estimates = states.repeat(100, 1), []
    for _ in range(100):
        loss, _ = model.actor_loss(many)
        estimates.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    estimates = torch.stack(estimates)
    error = estimates.std(0) / 10
    # 4 standard errors in each of 68 entries: a false alarm in 1 of 230 seeds.
    assert ((estimates.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    assert exact.norm() > 5 * error.norm(), "the gradient is lost in noise"


def test_each_loss_trains_only_its_network():
    model, batch = _model(), _transitions()
    model.actor_loss(batch.observations)[0].backward()
    assert all(p.grad is None for p in [*model.critics.parameters(), *model.targets.parameters()])
    assert all(p.grad.abs().sum() > 0 for p in model.actor.parameters())
    model.zero_grad()
    model.critic_loss(batch).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.actor.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.critics.parameters())


def test_target_critics_follow_the_critics():
    model = _model()
    before = [p.clone() for p in model.targets.parameters()]
    fast = list(model.critics.parameters())
    model.follow(0.25)
    for old, new, goal in zip(before, model.targets.parameters(), fast, strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * goal)
    assert not any(p.requires_grad for p in model.targets.parameters())


def _filled(capacity, count):
    replay = Replay(capacity, 1)
    for i in range(count):
        values = (torch.tensor([float(i)]), i, float(i), torch.tensor([i + 1.0]), 0.0)
        replay.add(Transitions(*map(torch.as_tensor, values)))
    return replay


def test_memory_drops_the_oldest_steps():
    replay = _filled(5, 8)
    drawn = replay.draw(1000, 0)
    assert replay.size == 5
    assert set(drawn.actions.tolist()) == {3, 4, 5, 6, 7}
    assert torch.equal(drawn.observations[:, 0], drawn.rewards)
    assert torch.equal(drawn.next_observations[:, 0], drawn.rewards + 1)


def test_draws_depend_on_their_key_and_survive_a_reload():
    replay = _filled(5, 8)
    other = Replay(5, 1)
    other.load_state_dict(replay.state_dict())
    for memory in (replay, other):
        step = (torch.tensor([8.0]), 8, 8.0, torch.tensor([9.0]), 1.0)
        memory.add(Transitions(*map(torch.as_tensor, step)))
    assert all(map(torch.equal, replay.draw(50, 1, 2), other.draw(50, 1, 2)))
    assert not torch.equal(replay.draw(50, 1, 2).actions, replay.draw(50, 1, 3).actions)
    with pytest.raises(ValueError, match="at most 3 steps"):
        Replay(3, 1).load_state_dict(replay.state_dict())
    for capacity, count, place in ((5, 8, 7), (5, 3, 0), (5, 8, -1)):
        state = _filled(capacity, count).state_dict()
        with pytest.raises(ValueError, match="expected the next step at"):
            Replay(capacity, 1).load_state_dict({**state, "next": place})


class _Counting:
    """An environment that truncates after three steps, and terminates on action 1."""

    def reset(self, seed):
        self.seed, self.count = seed, 0
        return np.array([seed % 97, 0.0]), {}

    def step(self, action):
        self.count += 1
        return np.array([self.seed % 97, self.count]), 1.0, action == 1, self.count == 3, {}


def test_truncation_is_not_termination():
    episodes = Episodes(_Counting(), seed=0)
    first = episodes.observation
    for _ in range(2):
        after, reward, terminated, total = episodes.step(0)
        assert (reward, terminated, total) == (1.0, False, None)
    after, _, terminated, total = episodes.step(0)
    assert after[1] == 3
    assert (terminated, total) == (False, 3.0)
    assert episodes.observation[1] == 0
    assert episodes.observation[0] != first[0], "each episode starts elsewhere"
    assert episodes.step(1)[2:] == (True, 1.0)


def test_a_running_episode_is_restored():
    episodes, other = (Episodes(make_environment("CartPole-v1"), seed=3) for _ in range(2))
    for action in [0, 1, 1, 0, 1] * 12:
        episodes.step(action)
    other.load_state_dict(episodes.state_dict())
    for action in (1, 0, 0):
        assert torch.equal(episodes.step(action)[0], other.step(action)[0])


def test_episodes_do_not_depend_on_those_played_with_them():
    def act(observations):
        return (observations[:, 2] > 0).long()

    together = play("CartPole-v1", 5, range(6), act)
    alone = torch.cat([play("CartPole-v1", 5, [n], act) for n in range(6)])
    assert torch.equal(together, alone)
    assert len(set(together.tolist())) > 1
    assert not torch.equal(together, play("CartPole-v1", 6, range(6), act))


SMALL = [
    "task=policy",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "model.hidden=[8]",
    "data.steps_per_epoch=30",
    "data.exploration=20",
    "data.validation_episodes=2",
    "trainer.max_epochs=1",
    "test_samples=3",
]


def _config(folder, *overrides):
    return check(RunConfig, compose("train", [*SMALL, f"paths.output_dir={folder}", *overrides]))


TRAINED = ["gumbel_softmax", "reinmax", "gumbel_rao", "reinforce", "rloo", "carms", "exact", "zgr"]
OPTIONS = [
    *(f"estimator={name}" for name in TRAINED),
    "temperature=cosine",
    "data.name=Acrobot-v1 data.steps_per_epoch=3",
    "on_nonfinite=skip",
    "data.capacity=20",
    "precision=64",
    "precision=bf16",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains(tmp_path, option):
    # The task's default temperature does not fit estimators without one.
    kind = ESTIMATORS.get(option.removeprefix("estimator="))
    none = ["temperature=none"] if kind and not kind.uses_temperature else []
    metrics = train(_config(tmp_path, *option.split(), *none))
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_policy_that_diverges_ends_in_one_line(tmp_path):
    """Also in the middle of a call, where actions are drawn from NaN logits."""
    with pytest.raises(DivergedError, match="expected"):
        train(_config(tmp_path, "optimizer.lr=1e30", "optimizer.warmup=0"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.name=CartPole-v99", "data.name: expected an environment of gymnasium"),
        ("data.name=Pendulum-v1", "data.name: expected an environment with vectors"),
        ("data.name=os:CartPole-v1", "data.name: expected an environment of gymnasium"),
        ("data.exploration=60000", "data.exploration: expected at most data.capacity"),
        ("trainer.limit_train_batches=3", "trainer.limit_train_batches"),
        ("trainer.devices=2", "trainer.devices: expected 1 with this task"),
        ("model.discount=1", "model.discount"),
        ("callbacks.gradient_snr=1", "callbacks.gradient_snr"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        train(_config(tmp_path, override))


def test_an_interrupted_run_resumes_exactly(tmp_path):
    from pytorch_lightning.callbacks import Callback

    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 50:
                raise RuntimeError("interrupted")

    options = ["trainer.max_epochs=3", "trainer.steps_per_call=10", "trainer.save_every=0"]
    whole = train(_config(tmp_path / "whole", *options))
    with pytest.raises(RuntimeError, match="interrupted"):
        train(_config(tmp_path / "part", *options), [Interrupt()])
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    assert content["global_step"] % 30, "the checkpoint should lie within an epoch"
    assert train(_config(tmp_path / "part", *options, f"resume={last}")) == whole
    ends = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "part")
    ]
    assert ends[0]["state_dict"].keys() == ends[1]["state_dict"].keys()
    assert all(torch.equal(v, ends[1]["state_dict"][k]) for k, v in ends[0]["state_dict"].items())
    assert ends[0]["experience"]["episodes"] == ends[1]["experience"]["episodes"]


def test_checkpoints_are_evaluated_and_sampled(tmp_path):
    from PIL import Image

    metrics = train(_config(tmp_path))
    own = [f"checkpoint={tmp_path / 'checkpoints/best.ckpt'}", "device=cpu"]
    quick = ["progress_bar=false", f"output={tmp_path / 'm.json'}", "num_episodes=3"]
    found = evaluate(check(EvaluateConfig, compose("evaluate", [*own, *quick])))
    assert found["test/return"] == metrics["test/return"]
    with pytest.raises(UserError, match="data.name: expected null .* task=policy"):
        evaluate(check(EvaluateConfig, compose("evaluate", [*own, *quick, "data.name=mnist"])))
    picture = sample(check(SampleConfig, compose("sample", own)))
    assert picture == tmp_path / "samples" / "episode.gif"
    codes = np.load(picture.with_suffix(".npz"))["codes"]
    with Image.open(picture) as film:
        assert film.n_frames > 1
    assert set(codes.tolist()) <= {0, 1}


def test_a_missing_extra_is_named(monkeypatch):
    from dvae.tasks.policy import environments

    gone = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(environments, "importlib", gone)
    with pytest.raises(UserError, match=r'pip install -e "\.\[policy\]"'):
        make_environment("CartPole-v1")
