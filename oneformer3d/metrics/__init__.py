"""Scores of segmented points: arrays in, numbers out; ``unified`` adapts them to mmengine."""

from .instance import InstanceMatches, InstanceScores, instance_scores, match_instances
from .panoptic import PanopticCounts, PanopticScores, match_segments, panoptic_scores
from .semantic import SemanticScores, confusion_matrix, semantic_scores
from .streaming import CausalEvaluator, StreamScores, TrackMap
from .unified import UnifiedSegMetric

__all__ = [
    'CausalEvaluator',
    'InstanceMatches',
    'InstanceScores',
    'PanopticCounts',
    'PanopticScores',
    'SemanticScores',
    'StreamScores',
    'TrackMap',
    'UnifiedSegMetric',
    'confusion_matrix',
    'instance_scores',
    'match_instances',
    'match_segments',
    'panoptic_scores',
    'semantic_scores',
]
