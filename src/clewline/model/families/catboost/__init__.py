"""CatBoost's boosters."""
