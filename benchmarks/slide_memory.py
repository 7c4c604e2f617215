"""Claim: windows over a large picture cost little time and memory beside the encoder.

``python benchmarks/slide_memory.py`` segments one picture of 1024 x 2048 by windows of
512 with a step of 426, with 20 to 847 classes, as scores are defined and as this
package makes them, and prints where the time goes. Linux only (``/proc``), or
``--device cuda``.
"""

from __future__ import annotations

from _inference import compare

if __name__ == '__main__':
    compare(__doc__, 'slide_memory.json', 'slide', (1024, 2048))
