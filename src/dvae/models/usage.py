"""Statistics of codes over a whole split, independent of its division into batches."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dvae.distributions import categorical_entropy, without_infinity

__all__ = ["CodeUsage", "MutualInformation"]

ACTIVE_NATS = 0.01
"""A latent is active if it carries more information about the image than this."""
_DEAD = 0.1
"""A category is dead if its share is below this fraction of 1 / K."""
_CHUNK = 2**24
"""Most logits that are converted to float64 at a time."""
_KEPT = 64
"""Most categories of a latent whose probabilities are stored one by one."""
_MAX_BYTES = 2**29
"""Most memory for the stored probabilities."""
_MAX_IMAGES = 4096
"""Most images whose probabilities are stored with more than `_KEPT` categories."""
_STORED = ("codes", "own", "log_probs", "indices", "rest")


class CodeUsage(Metric):
    """Usage of the categories of each latent over a split, in memory for N · K numbers.

    Args:
        num_latents: N.
        num_categories: K.
        shared: Whether a category means the same in all latents of a level.
        levels: The latents of each level of a hierarchy, from the image up; none for one level.
    """

    full_state_update = False
    counts: Tensor
    posterior: Tensor
    entropy: Tensor
    total: Tensor

    def __init__(
        self,
        num_latents: int,
        num_categories: int,
        *,
        shared: bool = False,
        levels: Sequence[slice] = (),
    ) -> None:
        super().__init__()
        self.shared = shared
        self.levels = levels
        zeros = torch.zeros(num_latents, num_categories, dtype=torch.float64)
        self.add_state("counts", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("posterior", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("entropy", zeros[:, 0].clone(), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, codes: Tensor) -> None:
        """Adds the logits (B, N, K) and codes (B, N) of a batch of images."""
        ones = torch.ones(codes.T.shape, dtype=self.counts.dtype, device=codes.device)
        self.counts.scatter_add_(1, codes.T, ones)
        for part in logits.split(max(1, _CHUNK // self.counts.numel())):
            self.posterior += part.double().softmax(-1).sum(0)
            self.entropy += categorical_entropy(part.double()).sum(0)
        self.total += len(logits)

    def usage(self) -> Tensor:
        """Share of images in each category, (N, K); rows sum to 1."""
        return self.counts / self.total

    def categories(self) -> Tensor:
        """Share of each category, rows sum to 1: (L, K) over each level if shared, else (N, K)."""
        return self._over_levels(self.usage())

    def dead_share(self) -> Tensor:
        """Fraction of the categories that are used less than 0.1 / K of the time, a scalar.

        Masked categories, whose logits are −inf for all images, do not count.
        """
        possible = self._over_levels(self.posterior) > 0
        dead = self.categories() < _DEAD / possible.sum(-1, keepdim=True)
        return (dead & possible).sum().double() / possible.sum()

    def perplexity(self) -> Tensor:
        """exp of the entropy of the usage of each latent, (N,), in [1, K]: K if all are used."""
        return _perplexity(self.usage())

    def information(self) -> Tensor:
        """I(x; z_n) = H(mean of q(z_n|x)) − mean of H(q(z_n|x)) in nats, (N,), in [0, ln K]."""
        aggregate = self.posterior / self.total
        return torch.special.entr(aggregate).sum(-1) - self.entropy / self.total

    def compute(self) -> dict[str, Tensor]:
        """Scalars: means over latents, the number of active latents, the share of dead categories.

        With a shared codebook also the perplexity of its usage, over all latents of a level. With
        several levels also all but the dead categories for each, counted from the image.
        """
        information, perplexity = self.information(), self.perplexity()
        values = {
            "usage_perplexity": perplexity.mean(),
            "latent_information": information.mean(),
            "active_latents": (information > ACTIVE_NATS).sum().double(),
            "dead_categories": 100 * self.dead_share(),
        }
        if self.shared:
            codebooks = _perplexity(self.categories())
            values["codebook_perplexity"] = codebooks.mean()
        for number, place in enumerate(self.levels if len(self.levels) > 1 else (), 1):
            values[f"usage_perplexity_{number}"] = perplexity[place].mean()
            values[f"latent_information_{number}"] = information[place].mean()
            active = (information[place] > ACTIVE_NATS).sum().double()
            values[f"active_latents_{number}"] = active
            if self.shared:
                values[f"codebook_perplexity_{number}"] = codebooks[number - 1]
        return values

    def _over_levels(self, values: Tensor) -> Tensor:
        """Means over the latents of each level, (L, K), if they share a codebook; else (N, K)."""
        if not self.shared:
            return values
        return torch.stack([values[place].mean(0) for place in self.levels or [slice(None)]])


class MutualInformation(Metric):
    """I(x; z) between the images of a split and all latents together.

    I(x; z) = KL(q(z|x) ‖ p(z)) − KL(q(z) ‖ p(z)) = E[log q(z|x) − log q(z)], where q(z) is the mean
    of q(z|x) over the M images of the split. Estimated with one code per image; at most ln M.

    Memory is bounded. With more than 64 categories, only the 64 most probable ones of each latent
    are stored one by one, and the others share the rest of the probability evenly. If the images
    take too much memory, every second one is left out, as often as needed; M is then the number of
    those that stay.

    References:
        Hoffman, Johnson 2016, "ELBO surgery".
    """

    full_state_update = False
    codes: list[Tensor]
    own: list[Tensor]
    log_probs: list[Tensor]
    indices: list[Tensor]
    rest: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in _STORED:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self._seen, self._stride = 0, 1

    def update(self, logits: Tensor, codes: Tensor) -> None:
        """Adds the logits (B, N, K) of a batch and the codes (B, N) drawn from them."""
        first = -self._seen % self._stride
        self._seen += len(codes)
        rows = max(1, _CHUNK // logits.shape[1:].numel())
        logits, codes = logits[first :: self._stride], codes[first :: self._stride]
        for part, drawn in zip(logits.split(rows), codes.split(rows), strict=True):
            self._store(part.float().log_softmax(-1), drawn)
        self._thin_out()

    def compute(self) -> Tensor:
        """I(x; z) in nats."""
        codes, own = dim_zero_cat(self.codes), dim_zero_cat(self.own)
        log_probs = dim_zero_cat(self.log_probs)
        if len(self.rest):
            mixture = self._sparse_scores(codes, log_probs).logsumexp(0)
        else:
            offsets = torch.arange(codes.shape[1], device=codes.device) * log_probs.shape[2]
            # −1e30 in place of −inf, because the matrix product below multiplies by 0.
            flat = without_infinity(log_probs, -1e30).flatten(1)
            parts = []
            for chunk in (codes + offsets).split(1024):
                hot = torch.zeros(len(chunk), flat.shape[1], device=codes.device)
                parts.append((hot.scatter_(1, chunk, 1) @ flat.T).logsumexp(1))
            mixture = torch.cat(parts)
        return (own - (mixture - math.log(len(log_probs)))).double().mean()

    def _store(self, log_probs: Tensor, codes: Tensor) -> None:
        others = log_probs.shape[-1] - _KEPT
        own = log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1)
        # Large codebooks come with many latents, whose sum would lose digits.
        self.own.append((own.double() if others > 0 else own).sum(-1))
        self.codes.append(codes)
        if others > 0:
            log_probs, indices = log_probs.topk(_KEPT)
            self.indices.append(indices.short())
            left = (1 - log_probs.exp().sum(-1)).clamp_min(torch.finfo(log_probs.dtype).tiny)
            self.rest.append((left / others).log())
        self.log_probs.append(log_probs)

    def _thin_out(self) -> None:
        """Leaves out every second image while those that are stored take too much memory."""
        while (count := sum(map(len, self.codes))) > 2:
            size = count * self.log_probs[0][0].numel() * self.log_probs[0].element_size()
            if size <= _MAX_BYTES and not (self.rest and count > _MAX_IMAGES):
                return
            self._stride *= 2
            for name in _STORED:
                if kept := getattr(self, name):
                    setattr(self, name, [torch.cat(kept)[::2].clone()])

    def _sparse_scores(self, codes: Tensor, log_probs: Tensor) -> Tensor:
        """log q(z_i|x_m) of the codes of each image i for each image m, (m, i)."""
        indices, rest = dim_zero_cat(self.indices).long(), dim_zero_cat(self.rest)
        width = int(max(indices.max(), codes.max())) + 1
        scores = torch.zeros(len(codes), len(codes), dtype=torch.float64, device=codes.device)
        for n in range(codes.shape[1]):
            table = rest[:, n, None].repeat(1, width).scatter_(1, indices[:, n], log_probs[:, n])
            scores += table.index_select(1, codes[:, n])
        return scores


def _perplexity(shares: Tensor) -> Tensor:
    """exp of the entropy of each row: (..., K) → (...)."""
    return torch.special.entr(shares).sum(-1).exp()
