"""Batches of planar worlds without PyBullet, compiled with numba: lidar, contact, motion, maps, routes and rewards.

`AnalyticWorld` is one world behind the interface of `sim.world.World`, `AnalyticBatch` many of them in one call, and
`AnalyticVectorEnv` the environment ``robonav/Navigate-v0`` over such a batch.
"""
