"""Plugins of a stranger, for the tests."""
