"""LightGBM's boosters."""
