"""The house's own chores: taking in trainings from a terminal, making room, looking after itself, being copied away and brought back."""
