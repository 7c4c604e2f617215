"""The generator of ZS3Net, one pixel at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmseg.registry import MODELS

#: Constant bias that the official code starts every linear layer with.
BIAS = 0.01


@MODELS.register_module()
class GMMNGenerator(nn.Module):
    """Perceptron from a class vector and noise to a feature (arXiv 1906.00817, 3.2).

    ``[embedding, noise] -> Linear -> LeakyReLU -> Dropout -> Linear``, without an
    activation at the end: features that follow a ReLU are never negative, generated
    ones may be. Weights start Xavier-uniform. Parameters are named as in the official
    code.

    Args:
        embed_dim: length ``E`` of a class vector.
        feature_dim: length ``F`` of a feature.
        noise_dim: length ``Z`` of the noise; None: as long as the class vector.
        hidden_channels: width of the hidden layer; 0: one linear layer, no dropout.
        dropout: probability of the dropout, in [0, 1).
        negative_slope: of the LeakyReLU.
        semantic_reconstruction: keep the layer of official checkpoints that maps a
            feature back to class vector and noise. No published run uses it.

    Raises:
        ValueError: if a size is not positive or ``dropout`` is outside [0, 1).
    """

    def __init__(
        self,
        embed_dim: int,
        feature_dim: int,
        noise_dim: int | None = None,
        *,
        hidden_channels: int = 256,
        dropout: float = 0.5,
        negative_slope: float = 0.2,
        semantic_reconstruction: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.feature_dim = feature_dim
        self.noise_dim = embed_dim if noise_dim is None else noise_dim
        require_sizes(
            embed_dim=embed_dim, feature_dim=feature_dim, noise_dim=self.noise_dim
        )
        if hidden_channels < 0 or not 0 <= dropout < 1:
            raise ValueError(
                'GMMNGenerator needs hidden_channels >= 0 and 0 <= dropout < 1, got '
                f'{hidden_channels=} and {dropout=}'
            )
        inputs = embed_dim + self.noise_dim
        self.model: nn.Module
        if hidden_channels:
            self.model = nn.Sequential(
                nn.Linear(inputs, hidden_channels),
                nn.LeakyReLU(negative_slope),
                nn.Dropout(dropout),
                nn.Linear(hidden_channels, feature_dim),
            )
        else:
            self.model = nn.Linear(inputs, feature_dim)
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(module.bias, BIAS)
        self.semantic_reconstruction_layer = (
            nn.Linear(feature_dim, inputs) if semantic_reconstruction else None
        )

    def forward(self, embeddings: Tensor, noise: Tensor) -> Tensor:
        """Generate features.

        Args:
            embeddings: ``(N, E)`` class vector of each feature.
            noise: ``(N, Z)`` in [0, 1).

        Returns:
            ``(N, F)``.
        """
        return self.model(torch.cat([embeddings, noise], dim=1))

    def reconstruct(self, features: Tensor) -> Tensor:
        """Map ``(N, F)`` features back to class vector and noise, ``(N, E + Z)``.

        Raises:
            RuntimeError: if the generator was built without that layer.
        """
        if self.semantic_reconstruction_layer is None:
            raise RuntimeError(
                'this GMMNGenerator has no layer to map features back; build it with '
                'semantic_reconstruction=True'
            )
        return self.semantic_reconstruction_layer(features)


def require_sizes(**sizes: int) -> None:
    """Raise a ValueError naming the sizes that are no positive number."""
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        raise ValueError(f'sizes of a generator must be positive, got {wrong}')
