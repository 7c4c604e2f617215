"""The version, in the one place that setup.py, the package and the docs read."""

__version__ = '0.1.0'
