"""PanoLLaVA: train vision-language models on 360-degree panoramas.

Importing this package imports nothing heavy; torch arrives with `panollava.model` and `panollava.training`.
"""

__version__ = "0.1.0"
