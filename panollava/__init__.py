"""PanoLLaVA: train vision-language models on 360-degree panoramas.

Importing this package imports nothing heavy; torch arrives with `panollava.model` and `panollava.training`. transformers' Auto classes
and pipelines know an exported model from then on.
"""

from panollava.registration import register

__version__ = "0.1.0"

register()
