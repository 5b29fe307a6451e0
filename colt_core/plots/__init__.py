"""Every figure of notebooks and views: functions return a matplotlib `Figure`; `save` writes it with its numbers."""

from .accuracy import accuracy_sparsity, costs, countings, tickets
from .agreement import overlap_by_layer, overlap_over_cycles, overlaps
from .charts import tickets_chart, what_if_chart
from .compare import comparisons, predictions
from .cycles import (
    class_counts,
    counts_table,
    epochs_table,
    magnitudes,
    pictures,
    progress,
    rounds_table,
    trajectories,
    what_if,
)
from .filters import against_chance, beside_chance, filters, venn_words, weight_history
from .frame import COLOURS, KEPT, MARKERS, STYLE, arm_name, canvas, places, png, save, sparsity_axis
from .gains import accuracy_cost, recovered, waterfall
from .overview import curves, panels_of, parallel
from .primer import rewound, trained
from .reconstruction import overlap_sides, picture_rows
from .retrained import sizes, sizes_table, soft_targets
from .similarity import layer_densities, order_of, similarity
from .structure import importance, pareto, structure
from .transfer import transfer
from .units import super_tickets

__all__ = [
    "COLOURS",
    "KEPT",
    "MARKERS",
    "STYLE",
    "accuracy_cost",
    "accuracy_sparsity",
    "against_chance",
    "arm_name",
    "beside_chance",
    "canvas",
    "class_counts",
    "comparisons",
    "costs",
    "countings",
    "counts_table",
    "curves",
    "epochs_table",
    "filters",
    "importance",
    "layer_densities",
    "magnitudes",
    "order_of",
    "overlap_by_layer",
    "overlap_over_cycles",
    "overlap_sides",
    "overlaps",
    "panels_of",
    "parallel",
    "pareto",
    "picture_rows",
    "pictures",
    "places",
    "png",
    "predictions",
    "progress",
    "recovered",
    "rewound",
    "rounds_table",
    "save",
    "similarity",
    "sizes",
    "sizes_table",
    "soft_targets",
    "sparsity_axis",
    "structure",
    "super_tickets",
    "tickets",
    "tickets_chart",
    "trained",
    "trajectories",
    "transfer",
    "venn_words",
    "waterfall",
    "weight_history",
    "what_if",
    "what_if_chart",
]
