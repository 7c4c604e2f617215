"""Pictures of results."""

from zs3_mmseg.visualization.charts import (
    confusion_chart,
    per_class_chart,
    seen_unseen_chart,
    summary_chart,
    training_chart,
)
from zs3_mmseg.visualization.drawing import (
    LegendEntry,
    draw_legend,
    draw_segmentation,
    legend_entries,
    write_names,
)
from zs3_mmseg.visualization.heat_maps import draw_heat_map, heat_map_sheet
from zs3_mmseg.visualization.local_visualizer import ZeroShotLocalVisualizer
from zs3_mmseg.visualization.overlay import as_percent, draw_overlay
from zs3_mmseg.visualization.sheets import comparison_sheet

__all__ = [
    'LegendEntry',
    'ZeroShotLocalVisualizer',
    'as_percent',
    'comparison_sheet',
    'confusion_chart',
    'draw_heat_map',
    'draw_legend',
    'draw_overlay',
    'draw_segmentation',
    'heat_map_sheet',
    'legend_entries',
    'per_class_chart',
    'seen_unseen_chart',
    'summary_chart',
    'training_chart',
    'write_names',
]
