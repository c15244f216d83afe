"""Sequence layers: each projects, runs its recurrence, and projects back, behind `initial_state`, `scan`, `step`."""
