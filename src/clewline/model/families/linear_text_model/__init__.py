"""Linear models over the terms of a text, executed without the library that trained them."""
