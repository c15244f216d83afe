"""The recurrences as pure functions on projected inputs: the loop that is the truth, and the parallel form of each."""
