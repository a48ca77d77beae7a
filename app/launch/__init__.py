"""The page on which runs are launched."""
