"""Tables before a model is trained on them: reading files, and assessing what they hold."""
