"""Small helpers that every other sub-package may import."""
