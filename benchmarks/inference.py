"""Claim: a picture of 512 x 512 costs what its encoder does, whatever is asked for.

``python benchmarks/inference.py`` segments one picture with 20 to 847 classes, as
scores are defined and as this package makes them, and prints where the time goes. Linux
only (``/proc``), or ``--device cuda``.
"""

from __future__ import annotations

from _inference import compare

if __name__ == '__main__':
    compare(__doc__, 'inference.json', 'whole', (512, 512))
