"""Kinds of models that can be registered, one module each; `kinds.find` tells which takes what."""
