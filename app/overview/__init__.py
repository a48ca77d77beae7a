"""The overview: what the house is at, what waits and why, and what wants a person's attention."""
