"""From sandbox.yaml, and the files it names, to what is desired: reads files, starts nothing, talks to nobody."""
