"""Seeded scene generators, one file each; `sim.generators.registry` knows them by name."""
