"""How good answers are: caption scores (captions.py), grounding against ground truth (grounding.py), comparison (compare.py).

Arithmetic on text that the web server may import: numpy and pydantic, never torch, and no file but the ones it is pointed at.
"""
