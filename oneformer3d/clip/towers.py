"""Dense features of open_clip's two image towers, as functions of a tower and images.

Enters: a tower (``VisionTransformer`` or ``ModifiedResNet``), normalised images (B, 3, H, W) and
which layers to take. Leaves: a map (B, C, h, w) that covers the whole image and the image embedding
(B, D), which is what the tower itself returns. Position tables are resized to the grid at hand.

Letters: B images, E width of the tokens, D width of the text space, h × w grid of the last map.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor

from .attention import Block, attend, class_token_block, last_block

RESNET_LAYERS = ('stem', 'layer1', 'layer2', 'layer3', 'layer4')
RESNET_STRIDES = (4, 4, 8, 16, 32)
PositionTable = Callable[[tuple[int, int]], Tensor]
Tower = VisionTransformer | ModifiedResNet


def tower_features(
    visual: Tower,
    images: Tensor,
    layers: Sequence[int],
    mode: str,
    attn_mode: str,
    positions: PositionTable,
) -> tuple[Tensor, Tensor]:
    """Dense map and image embedding.

    Args:
        visual: open_clip image tower.
        images: (B, 3, H, W), normalised, H and W multiples of the stride.
        layers: indices of the layers whose maps are taken; several are joined along C at the
            resolution of the finest. Mode 'clip' takes the last one only.
        mode: 'tokens' (the tower's own width) or 'clip' (text space, unit vectors).
        attn_mode: see ``attention.py``.
        positions: (h, w) → position table (1 + h·w, E).

    Returns:
        map (B, C, h, w) and embedding (B, D), not normalised.
    """
    if isinstance(visual, VisionTransformer):
        return vit_features(visual, images, layers, mode, attn_mode, positions)
    return resnet_features(visual, images, layers, mode, attn_mode, positions)


def vit_features(
    visual: VisionTransformer,
    images: Tensor,
    layers: Sequence[int],
    mode: str,
    attn_mode: str,
    positions: PositionTable,
) -> tuple[Tensor, Tensor]:
    """As ``tower_features``; tokens are taken after ``ln_post``, projected ones after ``proj``."""
    patches = visual.conv1(images)  # (B, E, h, w)
    grid = (patches.shape[-2], patches.shape[-1])
    first = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
    tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)  # (B, 1 + h·w, E)
    tokens = visual.ln_pre(tokens + positions(grid).to(tokens.dtype))

    *blocks, final = cast(Iterable[Block], visual.transformer.resblocks)
    taken = {}
    for index, block in enumerate(blocks):
        tokens = block(tokens)
        if index in layers:
            taken[index] = tokens
    if len(blocks) in layers:
        taken[len(blocks)] = last_block(final, tokens, attn_mode, grid)

    # the image embedding comes from the attention as it was trained
    if visual.pool_type == 'tok':
        pooled, _ = visual._pool(class_token_block(final, tokens))
    else:
        pooled, _ = visual._pool(last_block(final, tokens, 'vanilla', grid))
    embedding = pooled if visual.proj is None else pooled @ visual.proj

    maps = [visual.ln_post(taken[index])[:, 1:] for index in layers]
    if mode == 'clip':
        maps = [F.normalize((maps[0] @ visual.proj).float(), dim=-1)]
    joined = torch.cat(maps, dim=-1)  # (B, h·w, C)
    return joined.transpose(1, 2).unflatten(2, grid), embedding


def resnet_features(
    visual: ModifiedResNet,
    images: Tensor,
    layers: Sequence[int],
    mode: str,
    attn_mode: str,
    positions: PositionTable,
) -> tuple[Tensor, Tensor]:
    """As ``tower_features``; a map in text space comes from the attention pool, pixel by pixel."""
    taken = {}
    x = images
    for index, name in enumerate(RESNET_LAYERS):
        x = getattr(visual, name)(x)
        if index in layers:
            taken[index] = x  # blocks write to what they made only, never to their input

    pool, grid = visual.attnpool, (x.shape[-2], x.shape[-1])
    table = positions(grid).to(x.dtype)
    embedding = attention_pool(pool, x, table)
    if mode == 'clip':
        dense = dense_attention_pool(pool, x, table, attn_mode)
        return F.normalize(dense.float(), dim=1), embedding

    size = taken[min(layers)].shape[-2:]
    maps = [_enlarge(taken[index], size) for index in layers]
    return torch.cat(maps, dim=1), embedding


def attention_pool(pool: AttentionPool2d, x: Tensor, table: Tensor) -> Tensor:
    """The pool's own output for a grid of any size: the mean token attends to all tokens.

    Args:
        pool: open_clip's attention pool.
        x: (B, E, h, w).
        table: (1 + h·w, E) position table.

    Returns:
        (B, D).
    """
    tokens = _pool_tokens(x) + table  # (B, 1 + h·w, E)
    q = pool.q_proj(tokens[:, :1]).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    k = pool.k_proj(tokens).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    v = pool.v_proj(tokens).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    # softmax(q kᵀ / √d) v
    mixed = F.scaled_dot_product_attention(q, k, v)
    return pool.c_proj(mixed.transpose(1, 2).flatten(2))[:, 0]


def dense_attention_pool(pool: AttentionPool2d, x: Tensor, table: Tensor, attn_mode: str) -> Tensor:
    """Every pixel in the text space.

    'maskclip' is the value and output projection of each pixel, without its position; in the
    other modes each pixel attends to the others, positions included.

    Args:
        pool: open_clip's attention pool.
        x: (B, E, h, w).
        table: (1 + h·w, E) position table.
        attn_mode: see ``attention.py``.

    Returns:
        (B, D, h, w), not normalised.
    """
    grid = (x.shape[-2], x.shape[-1])
    if attn_mode == 'maskclip':
        mixed = pool.v_proj(x.flatten(2).transpose(1, 2))
    else:
        tokens = _pool_tokens(x) + table
        q, k, v = pool.q_proj(tokens), pool.k_proj(tokens), pool.v_proj(tokens)
        mixed = attend(q, k, v, pool.num_heads, attn_mode, grid)[:, 1:]
    return pool.c_proj(mixed).transpose(1, 2).unflatten(2, grid)


def resize_positions(table: Tensor, source: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position table for another grid: the class token's row stays, the others are resampled.

    Args:
        table: (1 + h·w, E), rows in the order of the source grid.
        source: (h, w) of the table.
        grid: (h', w') wanted.

    Returns:
        (1 + h'·w', E); the table itself where the grids are equal.

    Raises:
        ValueError: the table is not of the source grid.
    """
    if len(table) != 1 + source[0] * source[1]:
        raise ValueError(f'position table of {len(table)} rows is not 1 + {source[0]}·{source[1]}')
    if tuple(source) == tuple(grid):
        return table

    image = table[1:].float().unflatten(0, source).permute(2, 0, 1)[None]  # (1, E, h, w)
    # as open_clip resizes tables when it loads them
    image = F.interpolate(image, size=grid, mode='bicubic', antialias=True, align_corners=False)
    rows = image[0].flatten(1).t()
    return torch.cat([table[:1], rows.to(table.dtype)])


def position_table(visual: Tower) -> tuple[Tensor, tuple[int, int]]:
    """The table a tower was made with and its grid (h, w)."""
    if isinstance(visual, VisionTransformer):
        rows, columns = visual.grid_size
        return visual.positional_embedding, (rows, columns)
    table = visual.attnpool.positional_embedding
    side = visual.image_size // 32
    return table, (side, side)


def _pool_tokens(x: Tensor) -> Tensor:
    """(B, E, h, w) → (B, 1 + h·w, E): the mean, then the pixels."""
    tokens = x.flatten(2).transpose(1, 2)
    return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


def _enlarge(feature_map: Tensor, size: Sequence[int]) -> Tensor:
    if feature_map.shape[-2:] == torch.Size(size):
        return feature_map
    return F.interpolate(feature_map, size=tuple(size), mode='bilinear', align_corners=False)
