"""The control process: it watches, decides and acts until the machine matches sandbox.yaml."""
