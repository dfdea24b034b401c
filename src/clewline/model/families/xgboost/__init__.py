"""XGBoost's boosters."""
