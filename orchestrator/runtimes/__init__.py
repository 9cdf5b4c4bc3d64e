"""The worlds that replicas run in: containers of a Docker engine, processes of this machine."""
