"""The built-in data set: five products like those of MVTec LOCO, rendered, not photographed."""

from dfsc_tune.data.builtin.make import GENERATOR_VERSION, Counts, make_dataset, unrendered
from dfsc_tune.data.builtin.render import CATEGORIES, Rendered, RenderedDefect, render_image

__all__ = [
    "CATEGORIES",
    "GENERATOR_VERSION",
    "Counts",
    "Rendered",
    "RenderedDefect",
    "make_dataset",
    "render_image",
    "unrendered",
]
