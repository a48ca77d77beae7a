"""The database's versions, in order. A package, so that an installed wheel carries them."""
