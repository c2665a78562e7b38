"""Reinforcement learning with discrete actions drawn through the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from dvae.commands.schemas import (
    Count,
    NonNegative,
    RunConfig,
    Schema,
    StoredConfig,
)
from dvae.commands.script_schemas import EvaluateConfig, FromCheckpointConfig, SampleConfig
from dvae.errors import UserError
from dvae.tasks.base import Drawing, Task

if TYPE_CHECKING:
    from torch import Generator

    from dvae.tasks.policy.episodes import EpisodeData
    from dvae.tasks.policy.model import ActorCritic
    from dvae.tasks.policy.module import PolicyModule

__all__ = ["TASK", "PolicyTask"]


class Episodic(Schema):
    """See `dvae.tasks.policy.episodes.EpisodeData` and `dvae.tasks.policy.replay.Replay`."""

    name: str
    steps_per_epoch: Count
    validation_episodes: Annotated[int, Field(ge=2)]
    batch_size: Count
    capacity: Count
    exploration: Count


class ActorCriticModel(Schema):
    """See `dvae.tasks.policy.model.ActorCritic`."""

    name: Literal["actor_critic"]
    hidden: Annotated[list[Count], Field(min_length=1)]
    discount: Annotated[float, Field(ge=0, lt=1)]
    entropy_weight: NonNegative
    target_rate: Annotated[float, Field(gt=0, le=1)]


class StoredPolicy(StoredConfig):
    """What a checkpoint needs."""

    task: Literal["policy"]
    data: Episodic
    model: ActorCriticModel


class PolicyConfig(StoredPolicy, RunConfig):
    """Everything that a run is made of."""

    test_samples: Annotated[int, Field(ge=2)]


class PolicyTask(Task):
    """See `dvae.tasks.policy.model` and `dvae.tasks.policy.module`."""

    config = PolicyConfig
    stored = StoredPolicy
    selected_by = "val/return"
    drawings: ClassVar = {"episode": 1}
    options = frozenset({"num_samples"})

    def check(self, config: PolicyConfig) -> None:
        """Which options go together; see `Task.check`."""
        super().check(config)
        if config.data.exploration > config.data.capacity:
            raise UserError(
                f"data.exploration: expected at most data.capacity={config.data.capacity}, found "
                f"{config.data.exploration}"
            )
        if (config.trainer.limit_train_batches, config.trainer.limit_eval_batches) != (1.0, 1.0):
            raise UserError(
                "trainer.limit_train_batches, trainer.limit_eval_batches: expected 1.0 with "
                "task=policy, where data.steps_per_epoch and data.validation_episodes say how "
                f"much is done, found {config.trainer.limit_train_batches} and "
                f"{config.trainer.limit_eval_batches}"
            )

    def data(self, config: PolicyConfig) -> EpisodeData:
        """Numbers of steps and episodes."""
        from dvae.tasks.policy.episodes import EpisodeData

        data = config.data
        calls = config.trainer.steps_per_call
        return EpisodeData(
            data.steps_per_epoch, data.validation_episodes, config.test_samples, calls
        )

    def stored_data(self, stored: StoredPolicy, config: FromCheckpointConfig) -> EpisodeData:
        """As many episodes as are asked for, 100 by default."""
        from dvae.tasks.policy.episodes import EpisodeData

        count = config.num_samples if isinstance(config, EvaluateConfig) else None
        if count is not None and count < 2:
            raise UserError(f"num_samples: expected at least 2 episodes, found {count}")
        data = EpisodeData(1, stored.data.validation_episodes, 100)
        if count is not None:
            data.episodes = dict.fromkeys(data.episodes, count)
        return data

    def module(self, config: PolicyConfig, data: EpisodeData) -> PolicyModule:
        """A policy for the environment."""
        from dvae.commands.build import build_training
        from dvae.tasks.policy.module import PolicyModule
        from dvae.tasks.policy.replay import Replay
        from dvae.training.module import Evaluation

        model = _model(config)
        return PolicyModule(
            model,
            environment=config.data.name,
            target_rate=config.model.target_rate,
            replay=Replay(config.data.capacity, model.num_observations),
            batch_size=config.data.batch_size,
            exploration=config.data.exploration,
            training=build_training(config, data.steps_per_epoch() * config.trainer.max_epochs),
            evaluation=Evaluation(num_samples=config.test_samples),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredPolicy) -> PolicyModule:
        """A policy of the same sizes."""
        from dvae.tasks.policy.module import PolicyModule

        return PolicyModule(
            _model(stored), environment=stored.data.name, config=stored.model_dump()
        )

    def draw(
        self, module: Any, data: Any, what: str, config: SampleConfig, generator: Generator
    ) -> Drawing:
        """A film of one episode; see `Task.draw`."""
        from dvae.tasks.policy.environments import film

        if config.num_images not in (None, 1):
            raise UserError(f"num_images: expected 1 episode, found {config.num_images}")
        frames, actions = film(module.environment, config.seed, 0, module.best_actions)
        return Drawing(frames, actions)


def _model(stored: StoredPolicy) -> ActorCritic:
    from dvae.commands.build import build_layer
    from dvae.tasks.policy.environments import make_environment
    from dvae.tasks.policy.model import ActorCritic

    environment = make_environment(stored.data.name)
    (num_observations,) = environment.observation_space.shape or (0,)
    sizes = stored.model.model_dump(exclude={"name", "target_rate"})
    num_actions = int(getattr(environment.action_space, "n", 0))
    environment.close()
    return ActorCritic(num_observations, num_actions, build_layer(stored), **sizes)


TASK = PolicyTask()
