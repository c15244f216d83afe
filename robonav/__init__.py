"""robonav: world-model navigation for legged robots. The library; see docs/architecture.md for its layers."""

__version__ = "0.1.0"
