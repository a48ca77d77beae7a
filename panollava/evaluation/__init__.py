"""Asking a trained model: answers first, figures after, and controls that show whether it looked."""
