"""Style sheets and what else pages load, packaged so that an installed wheel finds them."""
