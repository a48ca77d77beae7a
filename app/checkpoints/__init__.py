"""Checkpoints: the rows of files that trainers say are whole."""
