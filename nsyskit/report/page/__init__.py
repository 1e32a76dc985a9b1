"""Pieces of the HTML report: escaped elements, sections, figures' data, style and script."""
