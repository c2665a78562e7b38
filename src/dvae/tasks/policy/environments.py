"""Environments of gymnasium with discrete actions, reproducible from seeds."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from dvae.errors import UserError, install_command
from dvae.randomness import keyed_seed

if TYPE_CHECKING:
    import gymnasium

__all__ = ["Episodes", "film", "make_environment", "play"]

Act = Callable[[Tensor], Tensor]
"""Observations (B, D) → indices of actions, (B,)."""


def make_environment(name: str, *, render: bool = False) -> gymnasium.Env[Any, Any]:
    """Makes an environment by its name, such as CartPole-v1.

    Raises:
        UserError: If gymnasium is not installed, the environment does not exist, its observations
            are not vectors, or its actions are not discrete.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise UserError(f"task=policy: expected gymnasium, found none; {install_command('policy')}")
    import gymnasium

    # Check first, because `gymnasium.make` imports a module for a name with a colon.
    if name not in gymnasium.registry:
        raise UserError(f"data.name: expected an environment of gymnasium, found {name!r}")
    try:
        environment = gymnasium.make(name, render_mode="rgb_array" if render else None)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UserError(
            f"data.name: expected an environment that can be made, found an error ({error})"
        ) from error
    observations, actions = environment.observation_space, environment.action_space
    vector = isinstance(observations, gymnasium.spaces.Box) and len(observations.shape) == 1
    if not vector or not isinstance(actions, gymnasium.spaces.Discrete) or actions.start:
        raise UserError(
            "data.name: expected an environment with vectors as observations and discrete "
            f"actions, found {name} with {observations} and {actions}"
        )
    return environment


class Episodes:
    """Runs one episode after another; seed and number of an episode determine its start.

    Args:
        environment: The environment.
        seed: Seed of the starts.
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], seed: int) -> None:
        self._environment = environment
        self._seed = seed
        self._number = -1
        self._begin()

    def _begin(self) -> None:
        self._number += 1
        self._actions: list[int] = []
        self._return = 0.0
        self.observation = _reset(self._environment, self._seed, self._number)

    def step(self, action: int) -> tuple[Tensor, float, bool, float | None]:
        """Takes one action, and begins the next episode if this one has ended.

        Returns:
            The next observation s', (D,); the reward; whether the episode has terminated in s'; and
            its return if it has ended, terminated or truncated, else None.
        """
        following, reward, terminated, truncated, _ = self._environment.step(action)
        after = torch.as_tensor(following, dtype=torch.float32)
        self._actions.append(action)
        self._return += float(reward)
        self.observation, total = after, None
        if terminated or truncated:
            total = self._return
            self._begin()
        return after, float(reward), bool(terminated), total

    def state_dict(self) -> dict[str, Any]:
        """The number of the episode, and its actions so far."""
        return {"number": self._number, "actions": list(self._actions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores an episode by repeating its actions."""
        self._number = state["number"] - 1
        self._begin()
        for action in state["actions"]:
            self.step(action)


def _reset(environment: gymnasium.Env[Any, Any], *key: int) -> Tensor:
    # Seeds of environments have 32 bits.
    observation, _ = environment.reset(seed=keyed_seed("episode", *key) % 2**32)
    return torch.as_tensor(observation, dtype=torch.float32)


@torch.no_grad()
def play(name: str, seed: int, numbers: Sequence[int], act: Act) -> Tensor:
    """Plays several episodes at once, each to its end.

    Args:
        name: The environment.
        seed: Seed of the starts.
        numbers: Numbers of the episodes; with the seed, each determines the start of its episode.
        act: Chooses actions.

    Returns:
        Returns of the episodes, (len(numbers),).
    """
    environments = [make_environment(name) for _ in numbers]
    observations = [_reset(e, seed, n) for e, n in zip(environments, numbers, strict=True)]
    returns = torch.zeros(len(numbers), dtype=torch.float64)
    running = list(range(len(numbers)))
    while running:
        actions = act(torch.stack([observations[i] for i in running])).tolist()
        for i, action in zip(list(running), actions, strict=True):
            following, reward, terminated, truncated, _ = environments[i].step(action)
            observations[i] = torch.as_tensor(following, dtype=torch.float32)
            returns[i] += float(reward)
            if terminated or truncated:
                running.remove(i)
    for environment in environments:
        environment.close()
    return returns


@torch.no_grad()
def film(name: str, seed: int, number: int, act: Act) -> tuple[Tensor, Tensor]:
    """Plays one episode and renders it.

    Returns:
        Frames (T, 3, H, W) in [0, 1], and the actions between them, (T − 1,).

    Raises:
        UserError: If the environment cannot be rendered on this machine.
    """
    # Render without a screen.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    environment = make_environment(name, render=True)
    observation = _reset(environment, seed, number)
    frames, actions, over = [_frame(environment)], [], False
    while not over:
        actions.append(int(act(observation.unsqueeze(0))))
        following, _, terminated, truncated, _ = environment.step(actions[-1])
        observation = torch.as_tensor(following, dtype=torch.float32)
        frames.append(_frame(environment))
        over = terminated or truncated
    environment.close()
    return torch.stack(frames), torch.tensor(actions)


def _frame(environment: gymnasium.Env[Any, Any]) -> Tensor:
    try:
        pixels = environment.render()
    except Exception as error:
        raise UserError(
            f"what=episode: expected an environment that can be rendered, found an error ({error})"
        ) from error
    frame = torch.as_tensor(pixels).permute(2, 0, 1)
    # Halve the size to keep the file small.
    return resize(frame, [side // 2 for side in frame.shape[1:]], antialias=True).float() / 255
