// The script of the console. Every page reads without it.
