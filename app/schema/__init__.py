"""The run schema and its presets, as the API tells them."""
