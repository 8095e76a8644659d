"""Colours as `#rrggbb`: how much two stand out from each other, and mixtures; pure."""

PAPER = "#f6f7f9"
"""The darkest ground of our pages on a light screen."""
LEAST_CONTRAST = 4.5
"""What text needs to stand out from what is behind it (WCAG 2.2, 1.4.3, level AA)."""


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, from 0 to 1."""
    parts = [part / 255 for part in _parts(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)  # noqa: PLR2004 - sRGB
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    """Return one colour with a share of another in it."""
    mixtures = (
        round(first + (second - first) * share) for first, second in zip(_parts(one), _parts(other), strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixtures)


def _parts(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
