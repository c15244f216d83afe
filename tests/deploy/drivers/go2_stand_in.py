"""A program in a Go2's place: sport mode's service and states on a DDS domain of this machine, and a lidar in a room.

    python go2_stand_in.py DOMAIN [KEY=VALUE ...]

It follows Move with a lag, keeps the latest for 1 s as the robot does, and prints each request as a line of JSON. Lines
on its standard input change it: {"mode": 7}, {"refuse": 1002}, {"state": false}, {"cloud": false}, {"nan": true}.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from typing import Any

import numpy as np
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from deploy.drivers import go2_idl as idl
from deploy.drivers.go2_dds import loopback_config

STATE_S, CLOUD_S, STEP_S, LAG_S, HOLD_S = 0.01, 0.1, 0.01, 0.1, 1.0
ROOM_M, HEIGHT_M = 6.0, 0.32
START = (1.0, -2.0, 0.5)  # in its odometry: where it was switched on lies elsewhere


class StandIn:
    def __init__(self, domain: int) -> None:
        self._domain = Domain(domain, loopback_config())
        participant = DomainParticipant(domain)
        self.requests = DataReader(participant, Topic(participant, "rt/api/sport/request", idl.Request))
        self.responses = DataWriter(participant, Topic(participant, "rt/api/sport/response", idl.Response))
        self.states = DataWriter(participant, Topic(participant, "rt/sportmodestate", idl.SportModeState))
        self.poses = DataWriter(participant, Topic(participant, "rt/utlidar/robot_pose", idl.PoseStamped))
        self.clouds = DataWriter(participant, Topic(participant, "rt/utlidar/cloud_deskewed", idl.PointCloud2))
        self.pose, self.velocity, self.target = np.array(START), np.zeros(3), np.zeros(3)
        self.moved_s = -HOLD_S
        self.with_: dict[str, Any] = {"mode": 1, "refuse": 0, "state": True, "cloud": True, "nan": False}

    def run(self) -> None:
        """Until its standard input ends."""
        threading.Thread(target=self.obey, daemon=True).start()
        due = {"step": time.monotonic(), "state": 0.0, "cloud": 0.0}
        while True:
            now = time.monotonic()
            for request in self.requests.take(32):
                if isinstance(request, idl.Request):  # else: its writer left
                    self.serve(request, now)
            while due["step"] <= now:
                due["step"] += STEP_S
                self.step(now)
            if now >= due["state"] and self.with_["state"]:
                due["state"] = now + STATE_S
                self.states.write(self.state())
                self.poses.write(self.lidar_pose())
            if now >= due["cloud"] and self.with_["cloud"]:
                due["cloud"] = now + CLOUD_S
                self.clouds.write(self.cloud())
            time.sleep(0.002)

    def obey(self) -> None:
        for line in sys.stdin:
            self.with_ |= json.loads(line)
        os._exit(0)

    def serve(self, request: idl.Request, now: float) -> None:
        identity, api = request.header.identity, request.header.identity.api_id
        noreply = request.header.policy.noreply
        said = {"api": api, "parameter": request.parameter, "noreply": noreply, "at_ns": time.monotonic_ns()}
        print(json.dumps(said), flush=True)
        refused = api == self.with_["refuse"]
        if not refused:
            if api == 1008 and self.with_["mode"] in (0, 1, 3):
                p = json.loads(request.parameter)
                self.target, self.moved_s = np.array([p["x"], p["y"], p["z"]]), now
            elif api == 1003:
                self.target = np.zeros(3)
            elif api == 1001:
                self.target, self.velocity = np.zeros(3), np.zeros(3)
                self.with_["mode"] = 7
            elif api in (1002, 1006):
                self.with_["mode"] = 1
        if not noreply:
            header = idl.ResponseHeader(identity, idl.ResponseStatus(4201 if refused else 0))
            self.responses.write(idl.Response(header, "", []))

    def step(self, now: float) -> None:
        target = self.target if now - self.moved_s < HOLD_S else np.zeros(3)
        self.velocity += (target - self.velocity) * (1 - math.exp(-STEP_S / LAG_S))
        self.velocity[np.abs(self.velocity) < 1e-4] = 0.0
        c, s = math.cos(self.pose[2]), math.sin(self.pose[2])
        vx, vy, yaw_rate = self.velocity
        self.pose += STEP_S * np.array([c * vx - s * vy, s * vx + c * vy, yaw_rate])

    def state(self) -> idl.SportModeState:
        x, y, yaw = (float(v) for v in self.pose)
        c, s = math.cos(yaw), math.sin(yaw)
        vx, vy, yaw_rate = (float(v) for v in self.velocity)
        x = math.nan if self.with_["nan"] else x
        imu = idl.IMUState(
            [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)], [0, 0, yaw_rate], [0, 0, 9.8], [0.02, -0.03, yaw], 40
        )
        return idl.SportModeState(
            idl.TimeSpec(int(time.time()), 0),
            0,
            imu,
            int(self.with_["mode"]),
            0.0,
            1,
            0.09,
            [x, y, HEIGHT_M],
            HEIGHT_M,
            [c * vx - s * vy, s * vx + c * vy, 0.0],
            yaw_rate,
            [0.0] * 4,
            [0] * 4,
            [0.0] * 12,
            [0.0] * 12,
            [idl.PathPoint(*[0.0] * 7) for _ in range(10)],
        )

    def lidar_pose(self) -> idl.PoseStamped:
        x, y, yaw = (float(v) for v in self.pose)
        pose = idl.Pose(idl.Point(x, y, HEIGHT_M), idl.Quaternion(0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))
        return idl.PoseStamped(idl.Header(idl.Time(0, 0), "odom"), pose)

    def cloud(self) -> idl.PointCloud2:
        """The walls of a room round the start, in the odometry's frame, and some floor."""
        along = np.linspace(-ROOM_M / 2, ROOM_M / 2, 60)
        wall = np.full_like(along, ROOM_M / 2)
        xy = np.concatenate([np.stack(p, 1) for p in ((along, wall), (along, -wall), (wall, along), (-wall, along))])
        points = np.zeros((len(xy) * 2, 4), np.float32)
        points[: len(xy), :2] = xy + START[:2]
        points[: len(xy), 2] = 0.3
        points[len(xy) :, :2] = xy * 0.7 + START[:2]  # floor
        fields = [idl.PointField(name, 4 * i, 7, 1) for i, name in enumerate(("x", "y", "z", "intensity"))]
        header = idl.Header(idl.Time(int(time.time()), 0), "odom")
        data = list(points.tobytes())
        return idl.PointCloud2(header, 1, len(points), fields, False, 16, 16 * len(points), data, True)


if __name__ == "__main__":
    robot = StandIn(int(sys.argv[1]))
    robot.with_ |= {key: json.loads(value) for key, value in (word.split("=") for word in sys.argv[2:])}
    robot.run()
