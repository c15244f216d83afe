"""State-space sequence layers behind three verbs: `initial_state`, `scan` and `step`, with resets inside a sequence."""
