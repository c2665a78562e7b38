"""What networks have in common whose codes have no position in the image."""

from collections.abc import Sequence

from torch import Tensor, nn

from dvae.networks.base import (
    Centre,
    CodeMap,
    Encoder,
    FeatureEncoder,
    PreciseLinear,
    activate,
    linear_blocks,
)
from dvae.networks.groups import GroupedEncoder, places_of

__all__ = [
    "BottomUpEncoder",
    "CodeNetwork",
    "FlatEncoder",
    "GroupedFlatEncoder",
]


class FlatEncoder(FeatureEncoder):
    """The logits come from the features by a linear map.

    Args:
        body: Turns what `features` prepares into features (B, width).
        width: Number of features.
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        centered: Whether a running mean is subtracted from the features.

    Attributes:
        width: Number of features.
    """

    def __init__(
        self,
        body: nn.Module,
        width: int,
        num_latents: int,
        num_categories: int,
        *,
        centered: bool,
    ) -> None:
        super().__init__()
        self.width = width
        self.body = body
        self.head = PreciseLinear(width, num_latents * num_categories)
        self.centre = Centre(width) if centered else nn.Identity()
        self._codes = (num_latents, num_categories)

    def to_logits(self, features: Tensor) -> Tensor:
        """Features (B, width) → logits (B, N, K)."""
        return self.head(self.centre(features)).unflatten(-1, self._codes)


class CodeNetwork(nn.Module):
    """Codes, and features of an image if there are any → logits of other codes.

    Args:
        codes: Latents that it reads.
        num_latents: n, latents whose logits it returns.
        num_categories: K.
        features: Features of an image that it reads too; 0 for none.
        hidden: Widths of the hidden layers.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
        dropout: Share of the hidden units that are left out in training.
        code_map: How it reads codes; see `CodeMap`.
        centered: Whether a running mean is subtracted from what the last linear map reads.
    """

    def __init__(
        self,
        codes: int,
        num_latents: int,
        num_categories: int,
        *,
        features: int = 0,
        hidden: Sequence[int],
        activation: str,
        normalization: str,
        dropout: float,
        code_map: str,
        centered: bool = False,
    ) -> None:
        super().__init__()
        self.read = CodeMap(num_categories, code_map)
        inputs, outputs = codes * self.read.width, num_latents * num_categories
        linear = nn.Linear if hidden else PreciseLinear
        first = hidden[0] if hidden else outputs
        self.codes = linear(inputs, first)
        # Once for each image, whatever the number of its draws.
        self.image = linear(features, first, bias=False) if features else None
        self.centre = Centre(inputs) if centered and not hidden else nn.Identity()
        self.body = nn.Sequential()
        if hidden:
            self.body.append(activate(first, activation, normalization))
            if dropout:
                self.body.append(nn.Dropout(dropout))
            self.body.extend(linear_blocks(hidden, activation, normalization, dropout))
            if centered:
                self.body.append(Centre(hidden[-1]))
            self.body.append(PreciseLinear(hidden[-1], outputs))
        self._codes = (num_latents, num_categories)

    def forward(self, z: Tensor, features: Tensor | None = None) -> Tensor:
        """Codes (..., B, n', K), features (B, D) → logits (..., B, n, K)."""
        hidden = self.codes(self.centre(self.read(z)))
        if self.image is not None:
            hidden = hidden + self.image(features)
        leading = hidden.shape[:-1]
        return self.body(hidden.flatten(0, -2)).reshape(*leading, *self._codes)


class GroupedFlatEncoder(GroupedEncoder):
    """Codes in a row, with a network for each group but the first.

    With the levels of a hierarchy as groups, from the top to the image, this is a ladder: inference
    goes up without draws, and down with them.

    Args:
        encoder: See `GroupedEncoder`.
        sizes: See `GroupedEncoder`.
        networks: For each group but the first, a network that reads codes and features.

    References:
        Sønderby et al. 2016, arXiv 1602.02282 (ladders).
    """

    def __init__(
        self, encoder: FlatEncoder, sizes: Sequence[int], networks: Sequence[CodeNetwork]
    ) -> None:
        super().__init__(encoder, sizes)
        self.networks = nn.ModuleList(networks)

    def correction(self, group: int, z: Tensor, features: Tensor) -> Tensor:
        """What codes drawn before add to the logits of a group; see `GroupedEncoder`."""
        return self.networks[group - 1](z, features)


class BottomUpEncoder(Encoder):
    """q(z|x) = q(z_1|x) Π_l q(z_l|z_{l−1}): each level reads the one below, and z_1 the image.

    The latents are those of the prior, from the top level to z_1; z_1 is drawn first.

    Args:
        encoder: An encoder for the level next to the image.
        sizes: Latents of each level, from the image up.
        networks: For each level but the first, a network that reads the codes of the level below.
    """

    def __init__(
        self, encoder: Encoder, sizes: Sequence[int], networks: Sequence[CodeNetwork]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.networks = nn.ModuleList(networks)
        self._places = places_of(sizes[::-1])[::-1]

    @property
    def places(self) -> Sequence[slice]:
        """From the level next to the image, which has the last latents, to the top."""
        return self._places

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → logits of z_1, (B, N_1, K)."""
        return self.encoder(images)

    def logits(self, features: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """The logits of the next level; see `Encoder.logits`."""
        return self.networks[len(drawn) - 1](drawn[-1]) if drawn else features
