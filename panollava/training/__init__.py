"""Training of the three stages on Lightning. `fit.py` tells the story of one stage, `chain.py` of several from a terminal."""
