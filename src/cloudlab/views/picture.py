"""What all our pictures can do: be shown in a notebook, with or without a kernel, and be saved."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab.errors import UsageError
from cloudlab.views import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOTLY = "application/vnd.plotly.v1+json"
INVISIBLE = "rgba(0,0,0,0)"
# The ones that help: without this list there's also one that sends the picture to plotly's cloud.
_BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
_EXPORT = 'pip install "cloudlab[export]"'


class Picture:
    """A picture: interactive where plotly runs, a static drawing and a table elsewhere, and words for who doesn't see it.

    `alt` says in a sentence or two what is to be seen, `table` lists it row by row.
    """

    title: str
    alt: str
    table: list[dict[str, str]]
    _text: str
    _height: float

    def _spec(self) -> dict[str, Any]:
        """Return the traces and the layout, as plotly.js takes them."""
        raise NotImplementedError

    def svg(self, dark: bool | None = None) -> str:
        """Return the static picture; `dark` says on which background it'll stand: unless given, it follows the page."""
        raise NotImplementedError

    @cached_property
    def plotly(self) -> go.Figure:
        """The interactive picture, to be changed at will: `figure.plotly.update_layout(...)`."""
        import plotly.graph_objects as go

        return go.Figure(self._spec())

    @property
    def html(self) -> str:
        """The static picture and the table, as a part of a page."""
        return f'<figure class="cloudlab-figure" style="margin:0">{self.svg()}{_html_table(self.table)}</figure>'

    def save_svg(self, path: Path | str) -> Path:
        """Write the static picture to a file."""
        return _written(path, self.svg() + "\n")

    def save_html(self, path: Path | str) -> Path:
        """Write a page with the interactive picture, which needs no network and no server: plotly.js is inside (5 MB)."""
        import plotly.io

        drawn = plotly.io.to_html(self.plotly, self._config, include_plotlyjs=True, full_html=False, div_id="figure")
        body = f"{drawn}<noscript>{self.svg()}</noscript>{_html_table(self.table)}"
        return written_page(path, self.title, f'<div role="img" aria-label="{escape(self.alt)}">{body}</div>')

    def save_png(self, path: Path | str, scale: float = 2) -> Path:
        """Write the picture as PNG, on white; this needs Kaleido and a Chromium or Chrome."""
        import plotly.graph_objects as go

        paper = {"paper_bgcolor": "white", "font": {"color": "#1f2328"}}
        printed = go.Figure(self.plotly).update_layout(paper, overwrite=False)
        try:
            printed.write_image(path, format="png", scale=scale, width=_PRINT_WIDTH, height=self._height)
        except (ImportError, ValueError, RuntimeError) as problem:
            raise UsageError(
                f"A PNG can't be written here: {str(problem).strip().splitlines()[0]}",
                allowed=f"with Kaleido ({_EXPORT}) and Chromium or Google Chrome on the PATH; save_svg and save_html need neither",
                example=f"{_EXPORT} && plotly_get_chrome",
            ) from problem
        return Path(path)

    @property
    def _config(self) -> dict[str, Any]:
        return {"displaylogo": False, "responsive": True, "modeBarButtons": [_BUTTONS]}

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        drawn = {**self.plotly.to_plotly_json(), "config": self._config}
        return {PLOTLY: drawn, "text/html": self.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}: {self._text}"


def theme(title: str, height: float, alt: str) -> dict[str, Any]:
    """Return the layout that all our pictures begin with: no background, colours that read on light and dark."""
    heading = {
        "text": escape(title, quote=False),
        "x": 0.5,
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 12},
    }
    return {
        "template": {},
        "paper_bgcolor": INVISIBLE,
        "plot_bgcolor": INVISIBLE,
        "font": {"family": style.FONT, "size": 12, "color": style.TEXT},
        "height": height,
        "meta": {"alt": alt},
        "modebar": {"bgcolor": INVISIBLE, "color": style.LINE, "activecolor": style.ALARM},
        "hoverlabel": {"bgcolor": "#24292f", "bordercolor": style.LINE, "font": {"color": "#f6f8fa"}, "align": "left"},
        **({"title": {**heading, "font": {"size": 16, "weight": 600}}} if title else {}),
    }


def hover(name: str, *lines: str) -> str:
    """Write what is shown when the mouse is over something."""
    return "<br>".join([f"<b>{escape(name, quote=False)}</b>", *(escape(line, quote=False) for line in lines if line)])


_LEFT = ".cloudlab-figure th,.cloudlab-figure td{text-align:left!important}"  # notebooks align cells to the right


def _html_table(rows: list[dict[str, str]]) -> str:
    """Write a table that is folded away until it's wanted."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(key)}</th>' for key in rows[0])
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row.values()) for row in rows]
    table = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )
    return f"<details><style>{_LEFT}</style><summary>The same as a table</summary>{table}</details>"


def _written(path: Path | str, text: str) -> Path:
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def written_page(path: Path | str, title: str, body: str) -> Path:
    """Write a whole page to a file, for light and dark screens."""
    return _written(path, _PAGE.format(title=escape(title or "cloudlab"), body=body))


_PRINT_WIDTH = 960
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 1em; background: #fff; color: #1f2328 }}
th, td {{ text-align: left; padding: 0.1em 1em 0.1em 0 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #e6e6e6 }} }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
