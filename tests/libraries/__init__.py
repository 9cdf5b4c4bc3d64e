"""Known libraries, preloaded and forked under use: which are safe, and what becomes of those that are not."""
