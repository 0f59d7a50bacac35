"""HTML templates: texts are escaped, figures are embedded, nothing is loaded from a network."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dfsc_tune import __version__


def render_template(name: str, **values: Any) -> str:
    """Renders a page from a template, with style, script and plotly.js inside."""
    environment = Environment(
        loader=PackageLoader("dfsc_tune.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _figure_json
    return environment.get_template(name).render(
        version=__version__,
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
        plotly=Markup((files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")),
        **values,
    )


def _figure_json(figure: go.Figure) -> Markup:
    """Writes a figure as JSON for a script element; Plotly escapes its texts."""
    return Markup(figure.to_json())


def _asset(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
