"""Retraining a classifier on generated features, piece by piece.

:class:`~zs3_mmseg.engine.hooks.GenerativeRetrainingHook` puts these together.
"""
