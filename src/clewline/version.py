"""The version of clewline; a leaf that every part may import."""

__version__ = "0.1.0"
