"""What is called from a shell: a room for each command, named as the command is.

Every room has ``main(argv=None)``, which ``tools/`` calls.
"""
