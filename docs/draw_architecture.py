"""Draw `architecture.svg`: the steps of a pass, and the layers of the package. `make docs` runs it."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, MARGIN = 960, 24
PURE, MIXED, IO = "#1b7f4d", "#7a5c00", "#1f5fa8"
STEPS = (
    ("discover", "list projects,", "then clusters", IO),
    ("select", "filters,", "fail closed", PURE),
    ("name", "stable,", "unique", MIXED),
    ("due", "what, and why", "", PURE),
    ("work", "observe, plan,", "apply, prove", IO),
    ("fold", "record and", "memory", PURE),
    ("publish", "one atomic", "version", IO),
)
LAYERS = (
    ("cli", "one file per command"),
    ("service", "the daemon: tasks, signals, schedule, reload"),
    ("assembly", "settings become parts"),
    ("telemetry | page | config | simulator", "logs, metrics, page, settings, simulated Palette and clusters"),
    ("runner", "one runner per instance: mailbox, lease, passes"),
    ("reconcile", "one pass: where decisions and I/O meet"),
    ("palette | kube | oidc | cloud | store", "one outside system each"),
    ("fanout | http | tls | events | tracing", "concurrency, requests, TLS, waiting, spans"),
    ("core", "pure decisions: no I/O, no clock, no randomness"),
)


def text(x: float, y: float, content: str, *, size: int = 13, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="currentColor">{escape(content)}</text>'
    )


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{colour}" fill-opacity="0.12" '
        f'stroke="{colour}"/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="currentColor" fill="none" marker-end="url(#head)"/>'


def drawing() -> str:
    parts = [text(MARGIN, 30, "A pass over one instance", size=16, weight="bold")]
    gap, height, top = 18, 66, 84
    width = (WIDTH - 2 * MARGIN - gap * (len(STEPS) - 1)) / len(STEPS)
    for index, (name, first, second, colour) in enumerate(STEPS):
        x = MARGIN + index * (width + gap)
        parts += [
            box(x, top, width, height, colour),
            text(x + width / 2, top + 22, name, weight="bold", anchor="middle"),
            text(x + width / 2, top + 41, first, size=11, anchor="middle"),
            text(x + width / 2, top + 56, second, size=11, anchor="middle"),
        ]
        if index:
            parts.append(arrow(x - gap + 2, top + height / 2, x - 5, top + height / 2))
    ends = {0: "Palette", 4: "Kubernetes API server", 6: "Redis, then Backstage"}
    for index, name in ends.items():
        centre = MARGIN + index * (width + gap) + width / 2
        anchor, x = (
            ("start", MARGIN)
            if index == 0
            else ("end", WIDTH - MARGIN)
            if index == len(STEPS) - 1
            else ("middle", centre)
        )
        line = arrow(centre, 65, centre, top - 5) if index == 0 else arrow(centre, top - 2, centre, 68)
        parts += [text(x, 60, name, size=12, anchor=anchor), line]
    for index, (name, colour) in enumerate((("pure", PURE), ("I/O", IO), ("both", MIXED))):
        parts += [box(MARGIN + index * 90, 170, 14, 14, colour), text(MARGIN + 20 + index * 90, 182, name, size=12)]
    parts.append(text(MARGIN, 232, "Layers: imports point down only", size=16, weight="bold"))
    for index, (name, what) in enumerate(LAYERS):
        y = 246 + index * 36
        colour = PURE if name == "core" else MIXED if name == "reconcile" else IO
        parts += [
            box(MARGIN, y, WIDTH - 2 * MARGIN, 30, colour),
            text(MARGIN + 12, y + 20, name, weight="bold"),
            text(340, y + 20, what),
        ]
    total = 246 + len(LAYERS) * 36 + 10
    style = (
        "svg{color:#1f2328;background:#ffffff}@media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" role="img" '
        'aria-label="The steps of a pass, and the layers of the package">'
        f"<style>{style}</style>"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
    )
    return "\n".join((head, *parts, "</svg>")) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(drawing())
