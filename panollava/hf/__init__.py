"""The model as transformers knows one: config, model, processor, and the directory that holds all three. Importing this package imports nothing."""
