"""Statistics of codes over a whole split, independent of its division into batches."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dvae.distributions import categorical_entropy, without_infinity

__all__ = ["CodeUsage", "MutualInformation"]

ACTIVE_NATS = 0.01
"""A latent is active if it carries more information about the image than this."""


class CodeUsage(Metric):
    """Usage of the categories of each latent over a split.

    Args:
        num_latents: N.
        num_categories: K.
    """

    full_state_update = False
    counts: Tensor
    posterior: Tensor
    entropy: Tensor
    total: Tensor

    def __init__(self, num_latents: int, num_categories: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_latents, num_categories, dtype=torch.float64)
        self.add_state("counts", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("posterior", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("entropy", zeros[:, 0].clone(), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, codes: Tensor) -> None:
        """Adds the logits (B, N, K) and codes (B, N) of a batch of images."""
        ones = torch.ones(codes.T.shape, dtype=self.counts.dtype, device=codes.device)
        self.counts.scatter_add_(1, codes.T, ones)
        self.posterior += logits.double().softmax(-1).sum(0)
        self.entropy += categorical_entropy(logits.double()).sum(0)
        self.total += len(logits)

    def usage(self) -> Tensor:
        """Share of images in each category, (N, K); rows sum to 1."""
        return self.counts / self.total

    def perplexity(self) -> Tensor:
        """exp of the entropy of the usage of each latent, (N,), in [1, K]: K if all are used."""
        return torch.special.entr(self.usage()).sum(-1).exp()

    def information(self) -> Tensor:
        """I(x; z_n) = H(mean of q(z_n|x)) − mean of H(q(z_n|x)) in nats, (N,), in [0, ln K]."""
        aggregate = self.posterior / self.total
        return torch.special.entr(aggregate).sum(-1) - self.entropy / self.total

    def compute(self) -> dict[str, Tensor]:
        """Scalars: mean usage perplexity, mean information per latent, number of active latents."""
        information = self.information()
        return {
            "usage_perplexity": self.perplexity().mean(),
            "latent_information": information.mean(),
            "active_latents": (information > ACTIVE_NATS).sum().double(),
        }


class MutualInformation(Metric):
    """I(x; z) between the images of a split and all latents together.

    I(x; z) = KL(q(z|x) ‖ p(z)) − KL(q(z) ‖ p(z)) = E[log q(z|x) − log q(z)], where q(z) is the mean
    of q(z|x) over the M images of the split. Estimated with one code per image; at most ln M.

    References:
        Hoffman, Johnson 2016, "ELBO surgery".
    """

    full_state_update = False
    log_probs: list[Tensor]
    codes: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("log_probs", [], dist_reduce_fx="cat")
        self.add_state("codes", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, codes: Tensor) -> None:
        """Adds the logits (B, N, K) of a batch and the codes (B, N) drawn from them."""
        # −1e30 in place of −inf, because the matrix product below multiplies by 0.
        self.log_probs.append(without_infinity(logits.float().log_softmax(-1), -1e30).flatten(1))
        offsets = torch.arange(logits.shape[1], device=codes.device) * logits.shape[2]
        self.codes.append(codes + offsets)

    def compute(self) -> Tensor:
        """I(x; z) in nats."""
        log_probs, codes = dim_zero_cat(self.log_probs), dim_zero_cat(self.codes)
        own = log_probs.gather(1, codes).sum(1)
        aggregate = []
        for chunk in codes.split(1024):
            hot = torch.zeros(len(chunk), log_probs.shape[1], device=codes.device)
            log_q = hot.scatter_(1, chunk, 1) @ log_probs.T
            aggregate.append(log_q.logsumexp(1) - math.log(len(log_probs)))
        return (own - torch.cat(aggregate)).double().mean()
