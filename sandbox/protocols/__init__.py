"""The wire formats of a worker: body in, model call, body out; a module each."""
