"""scikit-learn's estimators, pipelines and fitted preprocessing."""
