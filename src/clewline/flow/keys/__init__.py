"""The key of a step: all that its result depends on, found by walking its code."""
