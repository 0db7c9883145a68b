"""Published STMixer weights, by their names, into ``STMDecoder``.

Enters: a checkpoint of github.com/MCG-NJU/STMixer. Leaves: the decoder with its weights. The video
backbone and the criterion in the same file are left out.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from oneformer3d.files.checkpoints import load_checkpoint_file

# What stands before the decoder's own names, in a file of a whole detector.
_START = re.compile(r'^.*?(?=decoder_stages\.|init_spatial_queries\.|init_temporal_queries\.)')
_STAGE = re.compile(r'^decoder_stages\.(\d+)\.(.+)$')
# Beginnings of names within a stage, theirs and ours.
_PARTS = {
    'attention_s.attn.': 'attention_s.attn.',
    'attention_t.attn.': 'attention_t.attn.',
    'attention_norm_s.': 'attention_s.norm.',
    'attention_norm_t.': 'attention_t.norm.',
    # attention, then sampling and mixing, then the perceptrons
    'samplingmixing.offset_generator.0.': 'sampling_mixing.sampling_offset_generator.',
    'samplingmixing.': 'sampling_mixing.',
    'ffn_s.layers.0.0.': 'ffn_s.net.0.',
    'ffn_t.layers.0.0.': 'ffn_t.net.0.',
    'ffn_s.layers.1.': 'ffn_s.net.3.',
    'ffn_t.layers.1.': 'ffn_t.net.3.',
    'ffn_norm_s.': 'ffn_s.norm.',
    'ffn_norm_t.': 'ffn_t.norm.',
    # heads
    'human_cls_fcs.': 'cls_fc.',
    'human_fc_cls.': 'cls_head.',
    'reg_fcs.': 'box_fc.',
    'fc_reg.': 'box_head.',
    'action_cls_fcs.': 'action_fc.',
    'fc_action.': 'action_head.',
}


def load_stmixer(decoder: nn.Module, path: str | Path) -> None:
    """Load the decoder's part of an STMixer checkpoint.

    Args:
        decoder: an ``STMDecoder`` of the checkpoint's sizes; one box for all frames.
        path: of the checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, not of STMixer, or of other sizes; names the file.
    """
    state = decoder_state(load_checkpoint_file(path))
    if not state:
        raise ValueError(f'{path}: holds no STMixer decoder')
    try:
        decoder.load_state_dict(state)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path}: a decoder of other sizes: {reason}') from error


def decoder_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's tensors under our names; what is not the decoder's is left out.

    Raises:
        ValueError: a name within a stage that is not known.

    Example:
        >>> import torch
        >>> list(decoder_state({'stm_head.decoder_stages.0.fc_reg.bias': torch.zeros(4)}))
        ['stages.0.box_head.bias']
    """
    state = {}
    for full_name, values in published.items():
        name = _START.sub('', full_name)
        if name.startswith('init_'):
            state[name.replace('_queries', '')] = values
        elif match := _STAGE.match(name):
            stage, part = match.groups()
            for ours in _names_in_stage(part):
                state[f'stages.{stage}.{ours}'] = values
    return state


def _names_in_stage(part: str) -> list[str]:
    """Our names of one of theirs; both attentions here have the factor that theirs share."""
    if part == 'iof_tau':
        return ['attention_s.iof_tau', 'attention_t.iof_tau']
    for theirs, ours in _PARTS.items():
        if part.startswith(theirs):
            return [ours + part.removeprefix(theirs)]
    raise ValueError(f'no such part of an STMixer stage: {part!r}')
