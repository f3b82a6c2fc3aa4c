"""The design that pages and figures share: colours by their meaning, scales of colours, sizes of type.

All colours can be distinguished by people with a colour-vision deficiency, and text has a contrast of at least 4.5 with
what is behind it (WCAG 2.2, level AA), in light and in dark.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


class Colour(NamedTuple):
    """A colour on a light page or figure, and the same on a dark page, as `#rrggbb`."""

    light: str
    dark: str


# The names are those of the custom properties in page.css.
COLOURS: Mapping[str, Colour] = {
    "surface": Colour("#ffffff", "#16171a"),
    "raised": Colour("#f5f6f8", "#212327"),
    "ink": Colour("#1c1d20", "#e9eaee"),
    "muted": Colour("#595b63", "#a9acb6"),
    "rule": Colour("#dcdee3", "#3a3d44"),
    # What the page is about: the model, the chosen head.
    "accent": Colour("#1d5fa6", "#82b6f2"),
    "tint": Colour("#e7f0fa", "#1d3147"),
    # What it is compared with, and what is wrong.
    "contrast": Colour("#ad4e00", "#f0a35e"),
    # A third and a fourth series.
    "third": Colour("#0a756b", "#56c5b5"),
    "fourth": Colour("#86499a", "#d0a0e2"),
    "grey": Colour("#83868f", "#8b8e98"),
    # The ends of the shades of a table; ink is readable on all of them.
    "more": Colour("#78ade6", "#2b5f9e"),
    "less": Colour("#eda66a", "#8a4a12"),
}

# Classes that lie beside one another, in the order of their number of members: no two are alike to people with a
# colour-vision deficiency. Source: Okabe and Ito 2008, without yellow and black, which white and dark pages swallow.
CLASS_COLOURS = (
    Colour("#0072b2", "#3d9fd8"),
    Colour("#e69f00", "#e69f00"),
    Colour("#009e73", "#1fbf92"),
    Colour("#cc79a7", "#d98fb8"),
    Colour("#d55e00", "#e87a2b"),
    Colour("#56b4e9", "#8fd0f5"),
    Colour("#5c4b8a", "#a594d6"),
)

# Scales of matplotlib by what they show, on a light and on a dark page; the lowest value is close to the surface.
SCALES: Mapping[str, tuple[str, str]] = {
    "attention": ("magma_r", "magma"),
    "statistic": ("viridis", "viridis"),
    "contact": ("Blues", "Blues_r"),
}
# The part of a scale in which points are seen: its dark end is lost on a dark page, its bright end on a light one.
_SEEN = {"light": (0.0, 0.85), "dark": (0.3, 1.0)}
# Colours of the scale of effects, which has two ends: below zero, zero itself, which is the surface, and above it.
_EFFECTS = ("contrast", "less", "surface", "more", "accent")
_NUM_STOPS = 17

# Sizes of type in figures, in points of 1/72 inch; an inch of a figure is 96 pixels of a page.
TYPE = {"title": 10.5, "label": 9.5, "small": 8.5, "tiny": 7.0}


def colour_scale(use: str, theme: str = "light") -> "Colormap":
    """Return the colours of a scale by what it shows: a name in `SCALES`; `effect`, which has two ends; or `point`."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if use == "point":
        start, stop = _SEEN[theme]
        steps = [start + (stop - start) * step / (_NUM_STOPS - 1) for step in range(_NUM_STOPS)]
        return LinearSegmentedColormap.from_list(use, colormaps[SCALES["statistic"][0]](steps))
    if use == "effect":
        return LinearSegmentedColormap.from_list(use, [getattr(COLOURS[name], theme) for name in _EFFECTS])
    return colormaps[SCALES[use][theme == "dark"]]


def scale_colours(use: str) -> dict[str, list[str]]:
    """List the colours of a scale from the lowest value to the highest, at equal steps, by the theme of the page.

    >>> scale_colours("attention")["dark"][0], scale_colours("attention")["light"][-1]
    ('#000004', '#000004')
    """
    from matplotlib.colors import to_hex

    steps = [step / (_NUM_STOPS - 1) for step in range(_NUM_STOPS)]
    scales = {theme: colour_scale(use, theme) for theme in ("light", "dark")}
    return {theme: [to_hex(scale(step)) for step in steps] for theme, scale in scales.items()}
