"""Line charts as SVG, with nothing but text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[float, float]]
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989")


def line_chart(series: Mapping[str, Points], title: str, x_name: str, y_name: str, log: bool = False) -> str:
    """An SVG picture; `log`: the vertical axis is logarithmic."""
    width, height, left, bottom = 720, 360, 60, 40
    xs = [x for points in series.values() for x, _ in points]
    ys = [math.log10(y) if log else y for points in series.values() for _, y in points]
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys), max(ys))
    pad = 0.05 * ((y1 - y0) or 1)
    y0, y1 = y0 - pad, y1 + pad

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x0) / ((x1 - x0) or 1) * (width - left - 180)
        return across, height - bottom - (y - y0) / (y1 - y0) * (height - bottom - 40)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="20" font-size="14">{title}</text>',
        f'<text x="{left}" y="{height - 6}">{x_name}</text><text x="6" y="36">{y_name}</text>',
    ]
    for k in range(5):
        x, y = x0 + (x1 - x0) * k / 4, y0 + (y1 - y0) * k / 4
        across, up = place(x, y)
        parts.append(f'<line x1="{left}" x2="{width - 180}" y1="{up:.1f}" y2="{up:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{up + 4:.1f}" text-anchor="end">{10**y if log else y:.3g}</text>')
        parts.append(f'<text x="{across:.1f}" y="{height - bottom + 14}" text-anchor="middle">{x:.3g}</text>')
    for k, (name, points) in enumerate(series.items()):
        colour = COLOURS[k % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, math.log10(y) if log else y)) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{width - 170}" y="{50 + 18 * k}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def write_chart(path: Path, *arguments, **options) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(line_chart(*arguments, **options))
    return path
