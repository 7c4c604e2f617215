"""Pre-training of the tiny CLIP on captions of Shapes."""
