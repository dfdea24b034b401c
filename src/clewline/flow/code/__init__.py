"""The code that a run rests on: the project's own files, and the packages that they use."""
