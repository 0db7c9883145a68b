"""Adaptive mixing: features of a query's points → its update, by weights that the query makes.

Enters: features (B, N, G, P, C) and queries (B, N, Q). Leaves: queries (B, N, Q). Each group
mixes its channels, then its points (Gao et al., AdaMixer, CVPR 2022, section 3.2).

Letters: B samples, N queries, G groups, P points, C = in_dim / G channels of a group, Q width of a
query.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.lifting.shapes import expect_shape


class AdaptiveMixing(nn.Module):
    """Mix channels and points with matrices M and S generated from the query.

    ``Y = relu(norm(X M))``, ``Z = relu(norm(S Y))``, ``query + out_proj(Z)``; the norm has no
    parameters and goes over points and channels together.

    Args:
        in_dim: channels of all groups.
        in_points: P, before it is divided by the sampling rate.
        n_groups: G.
        query_dim: Q; ``in_dim`` by default.
        out_dim: channels of all groups after mixing; ``in_dim`` by default.
        out_points: points after mixing; ``in_points`` by default.
        sampling_rate: only every so many points come in.

    Raises:
        ValueError: groups that do not divide the channels, or numbers below 1.
    """

    def __init__(
        self,
        in_dim: int,
        in_points: int,
        n_groups: int,
        query_dim: int | None = None,
        out_dim: int | None = None,
        out_points: int | None = None,
        sampling_rate: int | None = None,
    ) -> None:
        super().__init__()
        out_dim = in_dim if out_dim is None else out_dim
        query_dim = in_dim if query_dim is None else query_dim
        out_points = in_points if out_points is None else out_points
        sampling_rate = sampling_rate or 1
        in_points = in_points // sampling_rate
        if min(in_dim, out_dim, query_dim, in_points, out_points, n_groups) < 1:
            raise ValueError('AdaptiveMixing: all sizes must be at least 1')
        if in_dim % n_groups or out_dim % n_groups:
            raise ValueError(
                f'AdaptiveMixing: {n_groups} groups do not divide in_dim={in_dim} and '
                f'out_dim={out_dim}'
            )

        self.n_groups = n_groups
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.query_dim = query_dim
        self.sampling_rate = sampling_rate
        self.in_points = in_points
        self.out_points = out_points
        self.eff_in_dim = in_dim // n_groups
        self.eff_out_dim = out_dim // n_groups

        # one linear layer makes M and S of every group
        self.m_parameters = self.eff_in_dim * self.eff_out_dim
        self.s_parameters = self.in_points * self.out_points
        self.total_parameters = self.m_parameters + self.s_parameters
        self.parameter_generator = nn.Sequential(
            nn.Linear(query_dim, n_groups * self.total_parameters)
        )

        self.out_proj = nn.Linear(self.eff_out_dim * out_points * n_groups, query_dim)
        self.act = nn.ReLU()
        self.init_weights()

    def init_weights(self) -> None:
        """All queries mix alike at first."""
        generator = self.parameter_generator[0]
        assert isinstance(generator, nn.Linear)
        nn.init.zeros_(generator.weight)
        bound = 1 / math.sqrt(self.out_proj.in_features)
        nn.init.uniform_(self.out_proj.weight, -bound, bound)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
        """Update queries.

        Args:
            x: (B, N, G, P, C).
            query: (B, N, Q).
            mask: (B, N, G, P) bool, points that count; the others are left out.
                A group without any gives zeros. None counts all.

        Returns:
            (B, N, Q), the query included.

        Raises:
            ValueError: shapes that do not fit.
        """
        batch_size, num_queries, _ = expect_shape('query', query, 'B N Q', Q=self.query_dim)
        sizes = {'G': self.n_groups, 'P': self.in_points, 'C': self.eff_in_dim}
        expect_shape('x', x, 'B N G P C', B=batch_size, N=num_queries, **sizes)

        parameters = self.parameter_generator(query).unflatten(-1, (self.n_groups, -1))
        m, s = parameters.split([self.m_parameters, self.s_parameters], dim=-1)
        m = m.unflatten(-1, (self.eff_in_dim, self.eff_out_dim))  # (B, N, G, C, C')
        s = s.unflatten(-1, (self.out_points, self.in_points))  # (B, N, G, P', P)

        # Y = relu(norm(X M)), Z = relu(norm(S Y))
        if mask is None:
            y = self.act(F.layer_norm(x @ m, (self.in_points, self.eff_out_dim)))
        else:
            y = self.act(_masked_norm(x @ m, mask[..., None].to(x.dtype)))
        z = self.act(F.layer_norm(s @ y, (self.out_points, self.eff_out_dim)))

        return query + self.out_proj(z.flatten(2))


def _masked_norm(x: Tensor, mask: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer norm over the points under the mask and their channels; zeros elsewhere."""
    count = (mask.sum(-2, keepdim=True) * x.shape[-1]).clamp(min=1)
    x = x * mask
    mean = x.sum((-2, -1), keepdim=True) / count
    centred = (x - mean) * mask
    variance = centred.square().sum((-2, -1), keepdim=True) / count
    return centred * torch.rsqrt(variance + eps)
