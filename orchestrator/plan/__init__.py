"""Deciding: what is wanted, what is there, what to do about the difference. Standard library, no I/O, no clock."""
