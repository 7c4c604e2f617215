"""Pictures of results."""

from zs3_mmseg.visualization.charts import per_class_chart, summary_chart
from zs3_mmseg.visualization.drawing import draw_segmentation
from zs3_mmseg.visualization.gzsl_charts import confusion_chart, seen_unseen_chart
from zs3_mmseg.visualization.legend import (
    LegendEntry,
    draw_legend,
    legend_entries,
    write_names,
)
from zs3_mmseg.visualization.local_visualizer import ZeroShotLocalVisualizer
from zs3_mmseg.visualization.overlay import as_percent, draw_overlay
from zs3_mmseg.visualization.sheets import comparison_sheet

__all__ = [
    'LegendEntry',
    'ZeroShotLocalVisualizer',
    'as_percent',
    'comparison_sheet',
    'confusion_chart',
    'draw_legend',
    'draw_overlay',
    'draw_segmentation',
    'legend_entries',
    'per_class_chart',
    'seen_unseen_chart',
    'summary_chart',
    'write_names',
]
