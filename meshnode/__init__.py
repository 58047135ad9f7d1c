"""meshnode: a node that knows what its mesh can hold, places a model's layers on it, or says exactly why not."""

__version__ = "0.1.0"
"""The distribution's version, as `pyproject.toml` states it; a test holds the two together."""
