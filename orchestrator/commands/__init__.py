"""One module per family of commands. Each declares its arguments and, when called, makes one call and renders it.

They are all imported to build the parser, so at their top they import nothing beyond the standard library and us.
"""
