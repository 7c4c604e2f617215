"""Generators: class vector and noise -> feature that a classifier can learn from."""

from .gmmn import GMMNGenerator
from .graph_context import GraphContextGenerator
from .label_graph import LabelGraph, label_graph

__all__ = ['GMMNGenerator', 'GraphContextGenerator', 'LabelGraph', 'label_graph']
