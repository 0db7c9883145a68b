"""What a field is built from: plain values that its file holds, and the networks made of them.

Enters: settings and what the scene can teach. Leaves: a recipe, and of it a ``Field`` and the
networks that place its samples, all with random weights.

Letters: C classes, D width of features or language.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..networks.feature_field import FeatureField, feature_heads
from ..networks.field import Field
from ..networks.hash_field import HashGridField
from ..networks.heads import LanguageHead, SharedFeatures
from ..networks.mlp_field import LERF, PanopticNeRF, SemanticNeRF
from ..networks.scene_box import SceneBox
from ..rendering.proposals import ProposalNetwork, ProposalSampler
from .settings import FitSettings

# Finest cells of the proposal networks' grids along the box, the first round's and the last one's.
_PROPOSAL_RESOLUTIONS = (64, 128)
# The copy that follows the head of instances slowly, and how many slots there are unless said.
SLOW_HEAD = 'instances_slow'
_NUM_SLOTS = 100


def make_recipe(
    settings: FitSettings,
    num_classes: int = 0,
    features: Mapping[str, int] | None = None,
    language_dim: int = 0,
) -> dict[str, Any]:
    """Collect what ``build_field`` needs, as plain values.

    Args:
        settings: say which field and which heads.
        num_classes: C, 0 without labels.
        features: D of the features by their type, none without; those of 'lerf' regularise its
            language.
        language_dim: D of the language, 0 without.

    Raises:
        ValueError: the method learns from something that the scene has not.
    """
    method = settings.method
    if method == 'panoptic' and not num_classes:
        raise ValueError('method panoptic needs labels; the scene has none')
    if method == 'feature_field' and not features:
        raise ValueError('method feature_field needs features; give a feature store')
    if method == 'lerf' and not language_dim:
        raise ValueError('method lerf needs language; give the weights of a CLIP')

    return {
        'field': settings.field,
        'method': method,
        'num_classes': num_classes,
        'features': dict(features or {}) if method in ('feature_field', 'lerf') else {},
        'language_dim': language_dim if method == 'lerf' else 0,
        'instance_loss': settings.instance_loss if method == 'panoptic' else None,
        'options': dict(settings.field_options),
        'added': {},
    }


def build_field(recipe: Mapping[str, Any], box: SceneBox | None = None) -> Field:
    """Build the network of a recipe with random weights.

    Raises:
        ValueError: options that the field does not have.
    """
    options = dict(recipe['options'])
    feature_options = options.pop('features', {})
    instance_dim = options.pop('instance_dim', 8)
    build = _hash_field if recipe['field'] == 'hash' else _mlp_field
    try:
        net = build(recipe, box, feature_options, instance_dim, options)
        if recipe['method'] == 'lerf':
            _add_shared_features(net, recipe['features'])
        if recipe.get('instance_loss') == 'slow_fast':
            slow = copy.deepcopy(net.head_nets['instances'])
            net.head_nets[SLOW_HEAD] = slow.requires_grad_(False)
        for name, added in recipe['added'].items():
            net.add_head(name, FeatureField(**added), freeze=True)
    except TypeError as error:
        raise ValueError(f'field_options: {error}') from error
    return net


def _hash_field(
    recipe: Mapping[str, Any],
    box: SceneBox | None,
    feature_options: Mapping[str, Any],
    instance_dim: int,
    options: dict[str, Any],
) -> HashGridField:
    if feature_options:
        options = {**options, 'feature_options': feature_options}
    if recipe.get('instance_loss') == 'slots':
        options = {'max_instances': _NUM_SLOTS, **options}
    own = recipe['features'] if recipe['method'] != 'lerf' else {}
    return HashGridField(
        recipe['num_classes'],
        instance_dim if recipe['method'] == 'panoptic' else 0,
        features=own,
        unit_instances=recipe.get('instance_loss') != 'slow_fast',
        language_dim=recipe['language_dim'],
        scene_box=box,
        **options,
    )


def _mlp_field(
    recipe: Mapping[str, Any],
    box: SceneBox | None,
    feature_options: Mapping[str, Any],
    instance_dim: int,
    options: dict[str, Any],
) -> SemanticNeRF:
    classes, method = recipe['num_classes'], recipe['method']
    options = {**options, 'scene_box': box}
    if method == 'panoptic':
        on_sphere = recipe.get('instance_loss') != 'slow_fast'
        return PanopticNeRF(
            classes, instance_feature_dim=instance_dim, unit_instances=on_sphere, **options
        )

    # these two have classes even where nothing teaches them
    classes = max(classes, 1)
    if method == 'lerf':
        return LERF(feature_dim=recipe['language_dim'], num_classes=classes, **options)
    net = SemanticNeRF(num_classes=classes, **options)
    for name, (feature_type, width) in feature_heads(recipe['features']).items():
        head = FeatureField(width, feature_type=feature_type, **feature_options)
        net.add_head(name, head, freeze=False)
    return net


def _add_shared_features(net: Field, features: Mapping[str, int]) -> None:
    """Heads of features that read what the language reads."""
    language = net.head_nets['language']
    assert isinstance(language, LanguageHead)
    for name, (feature_type, width) in feature_heads(features).items():
        head = SharedFeatures(language, width, feature_type)
        net.add_head(name, head, freeze=False)


def build_proposals(settings: FitSettings, contracted: bool = False) -> ProposalSampler:
    """The networks that place samples, with random weights: finer from round to round."""
    first, last = _PROPOSAL_RESOLUTIONS
    counts = tuple(settings.proposal_samples)
    resolutions = np.geomspace(first, last, len(counts)).round().astype(int).tolist()
    networks = [ProposalNetwork(side, contracted=contracted) for side in resolutions]
    return ProposalSampler(
        networks, counts, settings.proposal_final, anneal_steps=max(1, settings.steps // 4)
    )
