"""Python classes of the project with `predict(table)` or `predict(rows)`."""
