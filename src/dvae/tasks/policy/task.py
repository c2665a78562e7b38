"""The task of training a policy whose discrete actions the layer draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dvae.errors import UserError
from dvae.tasks.base import Drawing, Task
from dvae.tasks.options import EvaluateConfig, FromCheckpointConfig, SampleConfig
from dvae.tasks.policy.config import PolicyConfig, StoredPolicyConfig

if TYPE_CHECKING:
    from torch import Generator

    from dvae.tasks.policy.episodes import EpisodeData
    from dvae.tasks.policy.module import PolicyModule

__all__ = ["TASK", "PolicyTask"]

_TEST_EPISODES = 100
"""Default number of episodes of an evaluation."""


class PolicyTask(Task[StoredPolicyConfig, PolicyConfig, "EpisodeData", "PolicyModule"]):
    """See `model.py` and `module.py` beside this file."""

    stored = StoredPolicyConfig
    config = PolicyConfig
    selected_by = "val/return"
    drawings: ClassVar = {"episode": 1}
    options = frozenset({"num_episodes"})

    def data(self, config: PolicyConfig) -> EpisodeData:
        """The numbers of steps and episodes of a run."""
        from dvae.tasks.policy.episodes import EpisodeData

        data = config.data
        calls = config.trainer.steps_per_call
        return EpisodeData(
            data.steps_per_epoch, data.validation_episodes, config.test_samples, calls
        )

    def stored_data(self, stored: StoredPolicyConfig, config: FromCheckpointConfig) -> EpisodeData:
        """`num_episodes` episodes; 100 test episodes by default."""
        from dvae.tasks.policy.episodes import EpisodeData

        asked = config.num_episodes if isinstance(config, EvaluateConfig) else None
        validation = asked or stored.data.validation_episodes
        return EpisodeData(1, validation, asked or _TEST_EPISODES)

    def module(self, config: PolicyConfig, data: EpisodeData) -> PolicyModule:
        """A new policy for the environment."""
        from dvae.tasks.policy.module import PolicyModule
        from dvae.tasks.policy.replay import Replay

        model = config.build_model()
        return PolicyModule(
            model,
            **self._steps(config),
            replay=Replay(config.data.capacity, model.num_observations),
            training=config.build_training(data.steps_per_epoch() * config.trainer.max_epochs),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredPolicyConfig) -> PolicyModule:
        """A policy of the same sizes, without the checkpoint's weights."""
        from dvae.tasks.policy.module import PolicyModule

        return PolicyModule(stored.build_model(), **self._steps(stored), config=stored.model_dump())

    def _steps(self, stored: StoredPolicyConfig) -> dict[str, Any]:
        """Arguments of the module that say what a step does."""
        return {
            "environment": stored.data.name,
            "target_rate": stored.model.target_rate,
            "batch_size": stored.data.batch_size,
            "exploration": stored.data.exploration,
        }

    def draw(
        self,
        module: PolicyModule,
        data: EpisodeData,
        what: str,
        config: SampleConfig,
        generator: Generator,
    ) -> Drawing:
        """A film of one episode; see `Task.draw`."""
        from dvae.tasks.policy.environments import film

        if config.num_images not in (None, 1):
            raise UserError(f"num_images: expected 1 episode, found {config.num_images}")
        frames, actions = film(module.environment, config.seed, 0, module.best_actions)
        return Drawing(frames, actions)


TASK = PolicyTask()
