"""Training and evaluation of a policy with Lightning."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from dvae.errors import UserError
from dvae.randomness import keyed_generator, keyed_seed
from dvae.tasks.policy.environments import Episodes, make_environment, play
from dvae.tasks.policy.model import ActorCritic, Transitions
from dvae.tasks.policy.replay import Replay
from dvae.training.module import TaskModule
from dvae.training.settings import Evaluation, Training

__all__ = ["PolicyModule"]


class PolicyModule(TaskModule):
    """Alternates steps in the environment with optimizer steps on a memory of past steps.

    Training draws actions from the policy. Validation and test play whole episodes with the most
    probable actions. Metrics: `return`, the mean over episodes of the sum of rewards, and its
    standard error `return_error`.

    Args:
        model: Actor and critics.
        environment: Name of the environment.
        target_rate: Rate at which the target critics follow the critics at each step, in (0, 1].
        batch_size: Steps drawn from the memory for each optimizer step.
        exploration: Steps with uniformly drawn actions that fill the memory at the start.
        replay: The memory; None for evaluation only.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`.
    """

    shown: ClassVar[tuple[str, ...]] = ("return",)
    units: ClassVar[Mapping[str, str]] = {
        "return": "sum of rewards, mean over episodes",
        "return_error": "standard error of that mean",
    }

    def __init__(
        self,
        model: ActorCritic,
        *,
        environment: str,
        target_rate: float,
        batch_size: int,
        exploration: int,
        replay: Replay | None = None,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model.training_pass, training, evaluation, config)
        self.model = model
        self.environment = environment
        self.target_rate = target_rate
        self.replay = replay
        self.batch_size = batch_size
        self.exploration = exploration
        self._episodes: Episodes | None = None

    def training_loss(self, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Takes an action, then computes the losses of a batch from the memory."""
        replay, seed = self._memory(), self._options().seed
        if not replay.size:
            generator = keyed_generator("exploration", seed)
            num_actions = self.model.num_actions
            for action in torch.randint(num_actions, (self.exploration,), generator=generator):
                self._act(int(action))
        with torch.no_grad():
            logits = self.model.logits(self._to_model(self._running().observation))
            # Logits may be NaN here: they are reported only at the end of the call.
            action = torch.distributions.Categorical(logits=logits.nan_to_num()).sample()
        self._act(int(action))
        drawn = replay.draw(self.batch_size, seed, self.global_step)
        loss, actor, critic, entropy = self.training_pass(
            Transitions(*(self._to_model(value) for value in drawn))
        )
        return loss, {"actor_loss": actor, "critic_loss": critic, "entropy": entropy}

    def _step(self, batch: int) -> None:
        super()._step(batch)
        self.model.follow(self.target_rate)

    def _act(self, action: int) -> None:
        episodes = self._running()
        before = episodes.observation
        after, reward, terminated, total = episodes.step(action)
        step = (before, action, reward, after, float(terminated))
        self._memory().add(Transitions(*map(torch.as_tensor, step)))
        if total is not None:
            self.curves["train/return"] = total
            if self.training_options and self.trainer.loggers:
                for logger in self.loggers:
                    logger.log_metrics({"train/return": total}, step=self.global_step)

    def _running(self) -> Episodes:
        if self._episodes is None:
            seed = self._options().seed
            self._episodes = Episodes(make_environment(self.environment), seed)
        return self._episodes

    def _memory(self) -> Replay:
        if self.replay is None:
            raise ValueError("replay: expected a memory to train with, found none")
        return self.replay

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Plays the validation episodes."""
        self._play(batch, "val", seed=0)

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Plays the test episodes."""
        self._play(batch, self.evaluation.split, self.evaluation.seed)

    def _play(self, numbers: Tensor, split: str, seed: int) -> None:
        keys = keyed_seed(f"{split} episodes", seed)
        returns = play(self.environment, keys, numbers.tolist(), self.best_actions)
        self.log_means({"return": returns}, split)
        error = returns.std() / math.sqrt(len(returns))
        self.log(f"{split}/return_error", error.nan_to_num())

    def best_actions(self, observations: Tensor) -> Tensor:
        """The most probable actions: (B, D) → (B,)."""
        return self.model.logits(self._to_model(observations)).argmax(-1)

    def _to_model(self, values: Tensor) -> Tensor:
        """Moves values to the model's device, and floating-point values to its precision."""
        dtype = next(self.model.parameters()).dtype if values.is_floating_point() else values.dtype
        return values.to(self.device, dtype)

    def pictures(self, data: Any, split: str, seed: int) -> dict[str, Tensor]:
        """No pictures; `scripts/sample.py` makes films of episodes."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the memory and the running episode."""
        super().on_save_checkpoint(checkpoint)
        if self.replay is not None:
            episodes = self._running().state_dict()
            checkpoint["experience"] = {"replay": self.replay.state_dict(), "episodes": episodes}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the memory and the running episode when a run resumes.

        Raises:
            UserError: If they do not fit.
        """
        super().on_load_checkpoint(checkpoint)
        if self.replay is None or self.trainer.testing:
            return
        try:
            self.replay.load_state_dict(checkpoint["experience"]["replay"])
            self._running().load_state_dict(checkpoint["experience"]["episodes"])
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise UserError(
                f"resume: expected a memory that fits this run, found another ({error})"
            ) from error
