"""Fills the HTML templates: text is escaped, figures are embedded, nothing is loaded from afar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dfsc_tune import __version__


def render_template(name: str, **values: Any) -> str:
    """A whole page from one of our templates, with style, script and plotly.js inside."""
    environment = Environment(
        loader=PackageLoader("dfsc_tune.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _script_json
    return environment.get_template(name).render(
        version=__version__,
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
        plotly=Markup((files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")),
        **values,
    )


def _script_json(value: object) -> Markup:
    """JSON that can stand inside a script element whatever its texts hold."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for unsafe in "<>&\u2028\u2029":
        text = text.replace(unsafe, f"\\u{ord(unsafe):04x}")
    return Markup(text)


def _finite(value: object) -> object:
    """The same tree, for JSON: what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _asset(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
