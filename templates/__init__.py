"""Jinja templates, packaged so that an installed wheel finds them. `_name.html` is a piece, `name.html` a page."""
