"""How a Python class becomes a package: its code, its files, its arguments, what it requires."""
