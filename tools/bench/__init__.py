"""How fast the engine is beside its peers: `python -m tools.bench`. A new line is one function in a module that `__main__` imports."""
