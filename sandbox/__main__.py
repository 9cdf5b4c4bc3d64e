"""The guest folder's entry: the host copies this file beside the package, so that `python -I -B FOLDER` finds both."""

from sandbox.launch import main

main()
