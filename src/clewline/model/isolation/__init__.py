"""A model in a process of its own: the process, the messages, the predictor."""
