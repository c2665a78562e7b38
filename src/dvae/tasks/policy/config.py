"""The configuration of policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from dvae.errors import UserError
from dvae.options import Count, Fraction, NonNegative, Options
from dvae.training.config import LayerRunConfig, StoredLayerConfig

if TYPE_CHECKING:
    from dvae.tasks.policy.model import ActorCritic

__all__ = ["PolicyConfig", "StoredPolicyConfig"]


class EpisodeOptions(Options):
    """See `dvae.tasks.policy.episodes.EpisodeData` and `dvae.tasks.policy.replay.Replay`.

    Attributes:
        name: An environment of gymnasium.
        steps_per_epoch: Environment steps in an epoch; there are as many optimizer steps.
        validation_episodes: Episodes of a validation.
        batch_size: Steps drawn from memory for each optimizer step.
        capacity: Most steps that the memory holds.
        exploration: Steps with uniformly drawn actions that fill the memory at the start.
    """

    name: str = "CartPole-v1"
    steps_per_epoch: Count = 1000
    validation_episodes: Annotated[int, Field(ge=2)] = 50
    batch_size: Count = 128
    capacity: Count = 50_000
    exploration: Count = 1000

    @model_validator(mode="after")
    def _check_exploration(self) -> Self:
        if self.exploration > self.capacity:
            raise UserError(
                f"data.exploration: expected at most data.capacity={self.capacity}, found "
                f"{self.exploration}"
            )
        return self


class ActorCriticOptions(Options):
    """See `dvae.tasks.policy.model.ActorCritic`.

    Attributes:
        hidden: Widths of the hidden layers of actor and critics.
        discount: γ.
        entropy_weight: α, in rewards per nat.
        target_rate: Rate at which the target critics follow the critics at each step.
    """

    name: Literal["actor_critic"] = "actor_critic"
    hidden: list[Count] = Field([128, 128], min_length=1)
    discount: Fraction = 0.99
    entropy_weight: NonNegative = 1.0
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.02


class StoredPolicyConfig(StoredLayerConfig):
    """The part from which a checkpoint's model is rebuilt."""

    data: EpisodeOptions
    model: ActorCriticOptions

    def build_model(self) -> ActorCritic:
        """The model, with the sizes of the environment.

        Raises:
            UserError: If the environment is not available.
        """
        from dvae.tasks.policy.environments import make_environment
        from dvae.tasks.policy.model import ActorCritic

        environment = make_environment(self.data.name)
        (num_observations,) = environment.observation_space.shape or (0,)
        num_actions = int(getattr(environment.action_space, "n", 0))
        environment.close()
        return ActorCritic(
            num_observations,
            num_actions,
            self.build_layer(),
            hidden=self.model.hidden,
            discount=self.model.discount,
            entropy_weight=self.model.entropy_weight,
        )


class PolicyConfig(StoredPolicyConfig, LayerRunConfig):
    """The configuration of a run.

    Attributes:
        test_samples: Episodes of the final test.
    """

    test_samples: Annotated[int, Field(ge=2)] = 100

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        trainer = self.trainer
        if (trainer.limit_train_batches, trainer.limit_eval_batches) != (1.0, 1.0):
            raise UserError(
                "trainer.limit_train_batches, trainer.limit_eval_batches: expected 1.0 with "
                f"task=policy, found {trainer.limit_train_batches} and "
                f"{trainer.limit_eval_batches}; set data.steps_per_epoch and "
                "data.validation_episodes instead"
            )
        return self
