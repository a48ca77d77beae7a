"""Evaluations: questions put to a checkpoint, and how several of them compare."""
