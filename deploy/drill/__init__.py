"""Fault injection on real processes: the faults as data, a robot to try them on, and what they must come to."""
