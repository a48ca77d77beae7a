"""Runs: chains of training stages."""
