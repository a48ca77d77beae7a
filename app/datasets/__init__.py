"""Data sets: tables of questions about panoramas, and what is wrong with them before anything is trained on them."""
