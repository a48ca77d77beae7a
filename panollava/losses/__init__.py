"""Losses of stage vision, on features of the same direction seen in neighbouring views."""
