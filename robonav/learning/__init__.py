"""Replay, collection in worker processes, the training loop, and checkpoints."""
