"""An off-policy actor-critic whose actions are drawn through a Gumbel-Softmax layer."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvae.distributions import categorical_entropy, log_softmax
from dvae.layers import CategoricalLayer
from dvae.networks.base import PreciseLinear

__all__ = ["ActorCritic", "Transitions"]


class Transitions(NamedTuple):
    """Steps in an environment.

    Attributes:
        observations: s, (B, D).
        actions: a, the index of the action taken, (B,).
        rewards: r, (B,).
        next_observations: s', (B, D).
        terminated: 1 if the episode has terminated in s', (B,). An episode that is truncated by a
            time limit has 0, because rewards would follow.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminated: Tensor


def _mlp(inputs: int, hidden: list[int], outputs: int) -> nn.Sequential:
    widths = [inputs, *hidden]
    body = [
        module
        for width, following in zip(widths, hidden, strict=False)
        for module in (nn.Linear(width, following), nn.ReLU())
    ]
    return nn.Sequential(*body, PreciseLinear(widths[-1], outputs))


class ActorCritic(nn.Module):
    """A policy π(a|s), two critics Q_i(s, z), and their slowly following copies, the targets Q'_i.

    Q_i(s, z) = Σ_a z_a Q_i(s, a), so the value of a relaxed action is a weighted mean over actions.
    The layer draws z from π(·|s). The actor follows the gradient of min_i Q_i(s, z) by the layer's
    estimator: through z, or by the score function.

    Args:
        num_observations: D.
        num_actions: A, at least 2.
        layer: Draws actions.
        hidden: Widths of the hidden layers of actor and critics.
        discount: γ, in [0, 1).
        entropy_weight: α ≥ 0, weight of the policy's entropy in nats.

    References:
        Lillicrap et al. 2016 (DDPG), arXiv 1509.02971; Fujimoto et al. 2018 (two critics),
        arXiv 1802.09477; Christodoulou 2019 (discrete soft actor-critic), arXiv 1910.07207;
        Lowe et al. 2017 (Gumbel-Softmax actions), arXiv 1706.02275.
    """

    def __init__(
        self,
        num_observations: int,
        num_actions: int,
        layer: CategoricalLayer,
        *,
        hidden: list[int],
        discount: float,
        entropy_weight: float,
    ) -> None:
        super().__init__()
        self.num_observations = num_observations
        self.num_actions = num_actions
        self.layer = layer
        self.actor = _mlp(num_observations, hidden, num_actions)
        self.critics = nn.ModuleList(_mlp(num_observations, hidden, num_actions) for _ in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.discount = discount
        self.entropy_weight = entropy_weight

    def logits(self, observations: Tensor) -> Tensor:
        """Logits of π(·|s): (..., D) → (..., A)."""
        return self.actor(observations)

    def critic_loss(self, batch: Transitions) -> Tensor:
        """Mean over critics and steps of (Q_i(s, a) − y)².

        y = r + γ (1 − terminated) (Σ_a π(a|s') min_i Q'_i(s', a) + α H(π(·|s'))).
        """
        with torch.no_grad():
            log_policy = log_softmax(self.actor(batch.next_observations))
            values = torch.minimum(*(target(batch.next_observations) for target in self.targets))
            soft = (log_policy.exp() * (values - self.entropy_weight * log_policy)).sum(-1)
            goal = batch.rewards + self.discount * (1 - batch.terminated) * soft
        actions = batch.actions.unsqueeze(-1)
        chosen = [critic(batch.observations).gather(-1, actions) for critic in self.critics]
        return (torch.cat(chosen, -1) - goal.unsqueeze(-1)).square().mean()

    def actor_loss(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over states of −min_i Q_i(s, z) − α H(π(·|s)), and of H.

        Args:
            observations: s, (B, D).

        Returns:
            The loss, whose gradient reaches the actor only, and the entropy in nats, detached.
        """
        logits = self.actor(observations)
        sample = self.layer.sample(logits.unsqueeze(-2))
        with torch.no_grad():
            values = torch.minimum(*(critic(observations) for critic in self.critics))
        costs = -(sample.z.squeeze(-2) * values).sum(-1)
        entropy = categorical_entropy(logits).mean()
        loss = self.layer.estimator.surrogate(costs, sample) - self.entropy_weight * entropy
        return loss, entropy.detach()

    def training_pass(self, batch: Transitions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Computes the loss of a batch; this part is compiled.

        Returns:
            The loss, then (detached) its parts, of the actor and the critics, and the entropy of
            the policy in nats; scalars.
        """
        actor, entropy = self.actor_loss(batch.observations)
        critic = self.critic_loss(batch)
        return actor + critic, actor.detach(), critic.detach(), entropy

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Updates the targets: Q' ← Q' + rate · (Q − Q'), with rate in (0, 1]."""
        for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            slow.lerp_(fast, rate)
