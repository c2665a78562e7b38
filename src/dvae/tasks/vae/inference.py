"""How a trained VAE is used from Python."""

import torch
from torch import Generator, Tensor

from dvae.data.binarize import to_unit
from dvae.distributions import check_temperature
from dvae.errors import UserError
from dvae.models.vae import VAE
from dvae.tasks.vae.pictures import class_context
from dvae.training.inference import Inference

__all__ = ["VAEInference"]


class VAEInference(Inference):
    """Images to codes and back, with the most probable codes and mean images.

    Attributes:
        vae: The model.
    """

    vae: VAE

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The most probable code of each image, arg max_k q(z_n = k|x), group by group.

        Args:
            images: (B, C, H, W) on any device, as uint8 in 0 … 255 or as floats in [0, 1], with the
                size of the training images. A model of binarized images expects such.

        Returns:
            Categories in 0 … K − 1, (B, N), int64. For their probabilities, `self.vae.encode`
            returns the logits of q(z|x), (B, N, K); see there for codes drawn in several groups.

        Raises:
            UserError: If the shape or a value is wrong.
        """
        return self.vae.draw_codes(self.vae.encode(self._checked_images(images)))[1]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The mean image of codes, E[x|z].

        Args:
            codes: Categories in 0 … K − 1, (..., N), of any integer type; or one-hot or relaxed
                codes, (..., N, K), as floats.

        Returns:
            Images in [0, 1], (..., C, H, W).

        Raises:
            UserError: If the shape or a value is wrong.
        """
        codes, vae = torch.as_tensor(codes).to(self.vae.pixel_mean.device), self.vae
        shape: tuple[int, ...] = (vae.num_latents,)
        if codes.is_floating_point():
            shape = (*shape, vae.num_categories)
        if tuple(codes.shape[-len(shape) :]) != shape:
            raise UserError(
                f"codes: expected shape (..., {', '.join(map(str, shape))}) for values of type "
                f"{codes.dtype}, found {tuple(codes.shape)}"
            )
        if codes.is_floating_point():
            return vae.likelihood.mean(vae.decode(codes.to(vae.pixel_mean.dtype)))
        if codes.numel() and not 0 <= codes.min() <= codes.max() < vae.num_categories:
            raise UserError(
                f"codes: expected categories from 0 to {vae.num_categories - 1}, found "
                f"{codes.min()} to {codes.max()}"
            )
        return vae.likelihood.mean(vae.decode_codes(codes.long()))

    @torch.no_grad()
    def sample(
        self,
        num_images: int,
        generator: Generator | None = None,
        *,
        label: int | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Mean images of codes drawn from the prior, E[x|z] with z ~ p(z).

        Args:
            num_images: M, at least 0.
            generator: Source of randomness on the model's device; torch's own by default.
            label: The class, for a prior that was trained with classes.
            temperature: Divides the prior's logits; see `Prior.sample`.

        Returns:
            Images in [0, 1], (M, C, H, W). For their codes, decode those that
            `self.vae.prior.sample` returns, (M, N).

        Raises:
            UserError: If the prior has no such class, or the temperature is not valid.
        """
        prior, tau = self.vae.prior, check_temperature(temperature)
        context = class_context(prior, label)
        return self.decode(prior.sample(num_images, context, generator, temperature=tau))

    def reconstruct(self, images: Tensor) -> Tensor:
        """The mean image of each image's most probable code: `decode(encode(images))`.

        Args:
            images: See `encode`.

        Returns:
            Images in [0, 1], (B, C, H, W).
        """
        return self.decode(self.encode(images))

    def _checked_images(self, images: Tensor) -> Tensor:
        images, mean = torch.as_tensor(images), self.vae.pixel_mean
        if images.ndim != 4 or images.shape[1:] != mean.shape:
            shape = ", ".join(map(str, mean.shape))
            raise UserError(f"images: expected shape (B, {shape}), found {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = to_unit(images)
        # NaN fails the comparison, too.
        if images.numel() and not (images.min() >= 0 and images.max() <= 1):
            raise UserError(
                "images: expected uint8 or values in [0, 1], found values from "
                f"{images.min():g} to {images.max():g}"
            )
        return images.to(self.vae.pixel_mean.device, mean.dtype)
