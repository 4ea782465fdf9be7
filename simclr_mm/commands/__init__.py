"""The command-line tools, one package or module for each command.

Each has ``main(argv=None)``, which ``tools/`` calls.
"""
