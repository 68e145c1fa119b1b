"""Line charts as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
# Text stays text, and a chart of the same numbers is the same file.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "wan22", "font.family": "sans-serif"}
LINES = ("-", "--", ":")


def write_chart(
    path: Path, series: Mapping[str, Points], title: str, x_label: str, y_label: str, log: bool = False
) -> Path:
    """One line a series, named beside the plot; `log`: the vertical axis is logarithmic."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        for k, (name, points) in enumerate(series.items()):
            x, y = zip(*points, strict=True)
            # A line over another one of equal values is not the same kind of line, so that both can be seen.
            axes.plot(x, y, LINES[k % len(LINES)], label=name, linewidth=1.2, zorder=3 - k / 100)
        axes.set(title=title, xlabel=x_label, ylabel=y_label, yscale="log" if log else "linear")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path
