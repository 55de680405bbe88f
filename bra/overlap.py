"""Semantic overlap under its path of 0.3; it lives in `bra.metrics.overlap`."""

from bra.metrics.overlap import SemanticOverlap, class_shares, label_map, semantic_overlap

__all__ = ["SemanticOverlap", "class_shares", "label_map", "semantic_overlap"]
