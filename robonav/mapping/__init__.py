"""Mapping: a log-odds occupancy grid from lidar and odometry, its egocentric crop and its inflated costmap."""

from robonav.mapping.costmap import Costmap, CostmapConfig, build_costmap
from robonav.mapping.crop import egocentric_crop
from robonav.mapping.grid import OccupancyGrid
from robonav.mapping.mapper import Mapper, MapperConfig

__all__ = [
    "Costmap",
    "CostmapConfig",
    "Mapper",
    "MapperConfig",
    "OccupancyGrid",
    "build_costmap",
    "egocentric_crop",
]
