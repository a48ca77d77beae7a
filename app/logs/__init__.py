"""Logs: what a trainer printed."""
