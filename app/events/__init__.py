"""Events: what the live streams tell."""
