"""Metrics: scalars over steps, stored so that a chart costs what it shows."""
