"""Panoramas and questions on disk: tables, images, the index a training reads, checks, and the demo data. Torch-free."""
