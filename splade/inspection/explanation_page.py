"""Explanations as one HTML page without scripts or external files."""

from collections.abc import Sequence
from html import escape

from splade.inspection.views import View

_STYLE = """
:root { color-scheme: light dark; --line: #d9dee7; --own: #0b5cad; --new: #9a4a00; }
@media (prefers-color-scheme: dark) { :root { --line: #2d3543; --own: #8cc2ff; --new: #ffbb7a; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th { text-align: left; font-weight: 400; } thead th { opacity: .7; }
td, th { padding: .1rem .5rem .1rem 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.bar { width: 40%; } .bar span { display: block; height: .8rem; border-radius: .2rem; }
.bar .own { background: var(--own); }
.bar .new { background: repeating-linear-gradient(135deg, var(--new) 0 3px, transparent 3px 5px); }
.own-word { color: var(--own); } .new-word { color: var(--new); font-style: italic; }
.tokens { line-height: 1.9; } .tokens span { border-radius: .2rem; padding: .1rem .15rem; }
"""


def explanation_page(title: str, views: Sequence[View], top: int) -> str:
    """Return the page; words, titles and texts are escaped: they are anybody's."""
    body = "\n".join(view.html(top) for view in views)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )
