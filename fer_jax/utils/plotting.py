"""A matplotlib figure with the layout and the colours of all figures."""

import functools
from typing import Any

from fer_jax.utils import fonts

INK, TRAIN, VALIDATION, SELECTED, GRID = '#222222', '#8a8f98', '#1f6fb4', '#d1495b', '#e4e6ea'


def figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure at 120 dots per inch.

    Its texts are no formulas (`$` is a dollar), in fonts that have their characters; names that a user chose have to go
    through `fonts.showable` for characters that no font has.

    Args:
      width, height: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = _figure_class()(figsize=(width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def _figure_class() -> type:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class PlainFigure(Figure):
        """A figure in which every text is plain, and has the fonts of its characters."""

        def draw(self, renderer: Any) -> None:
            for axes in self.axes:  # these calls write the texts of the ticks
                axes.get_xticklabels()
                axes.get_yticklabels()
            for text in self.findobj(Text):
                text.set_parse_math(False)
                text.set_fontfamily(list(dict.fromkeys((fonts.DEFAULT, fonts.fit_font(text.get_text()).family))))
            super().draw(renderer)

    return PlainFigure
