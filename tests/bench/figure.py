"""The figure of the capacity page: the cost of passes and the memory at growing sizes, as an SVG for light and dark
pages.

Three panels over the number of clusters, 1,000 to 10,000, with the measured points. Each scale begins at zero, so a
straight line through the origin is proportional growth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 930, 290
PANEL, GAP, LEFT, TOP, BOTTOM = 236, 62, 54, 46, 240
LARGEST = 10_000

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 13px; }
  .small { font-size: 11px; fill: #57606a; }
  .axis { stroke: #8c959f; stroke-width: 1; fill: none; }
  .grid { stroke: #8c959f; stroke-opacity: .25; }
  .line { stroke: #0969da; stroke-width: 2; fill: none; }
  .dot { fill: #0969da; }
  .budget { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 4; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .line { stroke: #58a6ff; } .dot { fill: #58a6ff; }
    .budget { stroke: #ff7b72; }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """`points` are (clusters, value); `budget` is a value at 10,000 clusters that is drawn as a line."""

    title: str
    unit: str
    points: list[tuple[int, float]]
    budget: float | None = None

    @property
    def top(self) -> float:
        """The end of the scale: a round number above every value."""
        largest = max([value for _, value in self.points] + [(self.budget or 0.0) * 1.05])
        step = 10 ** len(str(int(largest))) / 10
        return next(step * factor for factor in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * factor >= largest)


def draw(facts: dict[str, Any]) -> str:
    """Return the SVG. Raises KeyError if figures of a full run are missing."""
    cold = sorted((int(size), one) for size, one in facts["cold_by_size"].items())
    quiet = sorted((one["clusters"], one) for name, one in facts.items() if name.startswith("quiet_"))
    panels = [
        Panel("cold pass: CPU", "s", [(size, one["cpu_s"]) for size, one in cold]),
        Panel("quiet pass: CPU", "ms", [(size, one["cpu_ms"]) for size, one in quiet], budget=None),
        Panel("memory, steady: RSS", "MB", [(size, one["rss_mb"]) for size, one in quiet], budget=300.0),
    ]
    body = "".join(_panel(panel, LEFT + number * (PANEL + GAP)) for number, panel in enumerate(panels))
    label = "CPU of a cold pass, CPU of a quiet pass and resident memory against the number of clusters"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"<style>{STYLE}</style>{body}</svg>\n"
    )


def _panel(panel: Panel, left: float) -> str:
    parts = [f'<text class="title" x="{left}" y="{TOP - 20}">{escape(panel.title)} ({panel.unit})</text>']
    for share in (0.0, 0.5, 1.0):
        y = _y(share * panel.top, panel)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + PANEL}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="small" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share * panel.top:,.4g}</text>'
        )
    for clusters in (1000, 5000, 10_000):
        x = _x(clusters, left)
        parts.append(f'<text class="small" x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{clusters:,}</text>')
    parts.append(f'<path class="axis" d="M{left} {TOP} V{BOTTOM} H{left + PANEL}"/>')
    parts.append(f'<text class="small" x="{left + PANEL / 2}" y="{BOTTOM + 38}" text-anchor="middle">clusters</text>')
    if panel.budget is not None:
        y = _y(panel.budget, panel)
        parts.append(f'<line class="budget" x1="{left}" y1="{y:.1f}" x2="{left + PANEL}" y2="{y:.1f}"/>')
        parts.append(f'<text class="small" x="{left + 6}" y="{y - 5:.1f}">budget</text>')
    places = [(_x(clusters, left), _y(value, panel), value) for clusters, value in panel.points]
    parts.append('<polyline class="line" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places) + '"/>')
    for number, (x, y, value) in enumerate(places):
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        # The label stands above the point; at the left edge it stands below, where the axis is not in the way.
        place = (
            f'x="{x + 5:.1f}" y="{y + 15:.1f}"' if number == 0 else f'x="{x - 4:.1f}" y="{y - 8:.1f}" text-anchor="end"'
        )
        parts.append(f'<text class="small" {place}>{_short(value)}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _x(clusters: float, left: float) -> float:
    return left + PANEL * clusters / LARGEST


def _y(value: float, panel: Panel) -> float:
    return BOTTOM - (BOTTOM - TOP) * value / panel.top
