"""Attention of a CLIP tower's last layer, for features that stay where they are.

Enters: tokens of the last layer, or its queries, keys and values. Leaves: tokens mixed in one of
four ways:

    vanilla   softmax(q kᵀ) v, as trained; what a patch says is gathered from far
    maskclip  v alone, nothing is mixed (Zhou et al., ECCV 2022)
    sclip     (softmax(q qᵀ) + softmax(k kᵀ)) v (Wang et al., ECCV 2024)
    naclip    softmax(k kᵀ + Gaussian window) v, without residual and MLP (Hajimiri et al., 2025)

Letters: B images, T tokens (first the class token, then the h × w patches row by row), E width,
n heads, d = E / n.
"""

import torch
import torch.nn.functional as F
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from torch import Tensor, nn

ATTN_MODES = ('vanilla', 'maskclip', 'sclip', 'naclip')
NACLIP_STD = 5.0  # of the Gaussian window, in patches
Block = ResidualAttentionBlock | CustomResidualAttentionBlock


def last_block(block: Block, tokens: Tensor, mode: str, grid: tuple[int, int]) -> Tensor:
    """The last residual block of an open_clip ViT with another attention.

    Works on ``nn.MultiheadAttention`` and on open_clip's own attention alike, as both keep
    ``in_proj_weight``, ``in_proj_bias`` and ``out_proj``.

    Args:
        block: open_clip's residual attention block.
        tokens: (B, T, E).
        mode: one of ``ATTN_MODES``.
        grid: (h, w) of the patches, T = 1 + h·w.

    Returns:
        (B, T, E).

    Raises:
        ValueError: an attention with more than the plain parameters, in another mode than vanilla.
    """
    if not _is_plain(block.attn):
        if mode != 'vanilla':
            raise ValueError(f'attn_mode {mode!r} needs plain attention, this model scales its own')
        return block(tokens)

    q, k, v = F.linear(
        block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias
    ).chunk(3, dim=-1)
    mixed = attend(q, k, v, block.attn.num_heads, mode, grid)
    update = block.ls_1(_norm_after(block)(block.attn.out_proj(mixed)))
    if mode == 'naclip':
        return update

    tokens = tokens + update
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def class_token_block(block: Block, tokens: Tensor) -> Tensor:
    """Class token after the block with its own (vanilla) attention, which alone is computed.

    Args:
        block: open_clip's residual attention block.
        tokens: (B, T, E).

    Returns:
        (B, 1, E).
    """
    if not _is_plain(block.attn):
        return block(tokens)[:, :1]

    # the query of the class token alone; keys and values of all tokens
    width = tokens.shape[-1]
    normed = block.ln_1(tokens)
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])
    q = F.linear(normed[:, :1], weight[:width], bias_q)
    k, v = F.linear(normed, weight[width:], bias_kv).chunk(2, dim=-1)

    heads = block.attn.num_heads
    q, k, v = (_split(x, heads) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v)
    token = tokens[:, :1] + block.ls_1(_norm_after(block)(block.attn.out_proj(_merge(mixed))))
    return token + block.ls_2(block.mlp(block.ln_2(token)))


def attend(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, mode: str, grid: tuple[int, int]
) -> Tensor:
    """Mix values among tokens.

    Args:
        q, k, v: (B, T, E).
        num_heads: n.
        mode: one of ``ATTN_MODES``.
        grid: (h, w) of the patches, T = 1 + h·w.

    Returns:
        (B, T, E), before the output projection.

    Raises:
        ValueError: unknown mode.
    """
    if mode == 'maskclip':
        return v

    q, k, v = (_split(x, num_heads) for x in (q, k, v))  # (B, n, T, d)
    if mode == 'vanilla':
        mixed = F.scaled_dot_product_attention(q, k, v)
    elif mode == 'sclip':
        mixed = F.scaled_dot_product_attention(q, q, v) + F.scaled_dot_product_attention(k, k, v)
    elif mode == 'naclip':
        window = neighbourhood_window(grid, device=k.device).to(k.dtype)
        mixed = F.scaled_dot_product_attention(k, k, v, attn_mask=window)
    else:
        raise ValueError(f'attn_mode: expected one of {ATTN_MODES}, got {mode!r}')
    return _merge(mixed)


def neighbourhood_window(
    grid: tuple[int, int], std: float = NACLIP_STD, device: torch.device | None = None
) -> Tensor:
    """What NACLIP adds to the logits: exp(−|p − p'|² / 2σ²) between patches, 0 at the class token.

    Args:
        grid: (h, w).
        std: σ in patches.
        device: of the result.

    Returns:
        (1 + h·w, 1 + h·w) float32.
    """
    rows = torch.arange(grid[0], device=device, dtype=torch.float32)
    columns = torch.arange(grid[1], device=device, dtype=torch.float32)
    patch = torch.cartesian_prod(rows, columns)  # (h·w, 2)

    # exp(−‖p − p'‖² / 2σ²)
    squared = (patch[:, None] - patch[None]).square().sum(-1)
    return F.pad(torch.exp(-squared / (2 * std**2)), (1, 0, 1, 0))


def _split(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, E) → (B, n, T, d)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    """(B, n, T, d) → (B, T, E)."""
    return x.transpose(1, 2).flatten(2)


def _norm_after(block: Block) -> nn.Module:
    return getattr(block, 'ln_attn', nn.Identity())


def _is_plain(attn: nn.Module) -> bool:
    """Whether softmax(q kᵀ / √d) v between the two projections is all that the module does."""
    if isinstance(attn, nn.MultiheadAttention):
        return True
    extras = (getattr(attn, 'logit_scale', None), getattr(attn, 'head_scale', None))
    norms = [getattr(attn, name, nn.Identity()) for name in ('ln_q', 'ln_k', 'ln_inner')]
    return all(extra is None for extra in extras) and all(
        isinstance(norm, nn.Identity) for norm in norms
    )
