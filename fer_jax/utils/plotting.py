"""A matplotlib figure with the layout and the colours of all figures."""

from typing import Any

INK, TRAIN, VALIDATION, SELECTED, GRID = '#222222', '#8a8f98', '#1f6fb4', '#d1495b', '#e4e6ea'


def figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure at 120 dots per inch.

    Args:
      width, height: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    return figure
