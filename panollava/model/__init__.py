"""The vision-language model: read `panollava.py` first. Importing this package imports torch."""
