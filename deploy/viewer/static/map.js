// The map of one log: what was known, the way, the robot, what it sensed, what it imagined.

const LAYERS = {
  map: ['Map', 'occupied', 'map_t'], route: ['Route', 'route', 'route_t'], trail: ['Trail', 'trail', 'pose'], scan: ['Scan', 'scan', 'scan'],
  movers: ['Movers', 'mover', 'mover_t'], rollouts: ['Imagined', 'ramp-1', 'roll_t'], dreams: ['Dream', 'odd', 'dream_xy'], events: ['Events', 'bad', 'pose'],
};
const layers = new Set(Object.keys(LAYERS));
const view = { zoom: 1, dx: 0, dy: 0, follow: false };  // shared by both maps, so that they show the same place

class MapView {
  constructor(log, which) {
    this.log = log;
    this.canvas = element('canvas', { tabindex: 0, role: 'img' });
    this.caption = element('figcaption');
    this.scale = element('div', { class: 'scale' });
    this.ramp = element('div', { class: 'ramp' }, 'low', element('i'), 'high value');
    this.figure = element('figure', { class: 'map' }, this.canvas, this.caption, this.scale, this.ramp);
    this.which = which;
    this.tiles = document.createElement('canvas');
    this.shown = -1;
    this.colours = -1;
    this.listen();
    this.take(log);
  }

  take(log) {
    this.log = log;
    this.box = this.extent();
    this.shown = -1;
    this.ramp.hidden = !log.has('roll_t');
    this.caption.replaceChildren(...(letter(this.which) ? [element('b', {}, letter(this.which)), log.meta.name] : []));
    this.canvas.setAttribute('aria-label', `Map of ${log.meta.name}: ${log.has('pose') ? 'robot, route, scan and what is known' : 'the log has no poses'}`);
  }

  extent() {
    const { pose, goal, obs_t: times } = this.log.a;
    let box = [-1, -1, 1, 1];
    const grow = (x, y) => { box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)]; };
    for (let i = 0; times && i < times.length; i++) { grow(pose[3 * i], pose[3 * i + 1]); grow(goal[2 * i], goal[2 * i + 1]); }
    const known = this.log.meta.map && this.log.meta.map.shown;
    if (known) { grow(known[0], known[1]); grow(known[2], known[3]); }
    return [box[0] - 0.4, box[1] - 0.4, box[2] + 0.4, box[3] + 0.4];
  }

  // The map's cells up to a time, one pixel each; kept, and only changed by what came since.
  cells(t) {
    const { map } = this.log.meta;
    const { map_t: times, map_at: at, map_cell: cell, map_level: level } = this.log.a;
    if (!map || !times) return null;
    const upTo = indexAt(times, t);
    if (this.colours !== colourVersion || upTo < this.shown || this.tiles.width !== map.width || this.tiles.height !== map.height) {
      this.tiles.width = map.width;
      this.tiles.height = map.height;
      this.pixels = new ImageData(map.width, map.height);
      this.palette = new Uint32Array(256);
      const bytes = new Uint8ClampedArray(this.palette.buffer);
      const [unknown, free, occupied] = ['unknown', 'free', 'occupied'].map(n => rgb(colours[n]));
      for (let k = 0; k < 256; k++) {
        const odds = (k << 24 >> 24) / map.levels;
        const colour = odds > 0 ? mixed(unknown, occupied, Math.min(1, odds / 1.6)) : mixed(unknown, free, Math.min(1, -odds / 0.8));
        bytes.set([...colour, odds === 0 ? 0 : 255], 4 * k);
      }
      this.words = new Uint32Array(this.pixels.data.buffer);
      this.shown = -1;
      this.colours = colourVersion;
    }
    if (upTo !== this.shown) {
      for (let i = at[this.shown + 1]; i < at[upTo + 1]; i++) this.words[cell[i]] = this.palette[level[i] & 255];
      this.tiles.getContext('2d').putImageData(this.pixels, 0, 0);
      this.shown = upTo;
    }
    return this.tiles;
  }

  frame(w, h, t) {
    const [x0, y0, x1, y1] = this.box;
    this.whole = Math.min(w / (x1 - x0), h / (y1 - y0));  // pixels a metre when everything is shown
    const scale = this.whole * view.zoom;
    let [cx, cy] = [(x0 + x1) / 2, (y0 + y1) / 2];
    const pose = view.follow && this.log.pose(t);
    if (pose) [cx, cy] = pose;
    this.px = (x, y) => [w / 2 + (x - cx) * scale + view.dx, h / 2 - (y - cy) * scale + view.dy];
    this.pixelsPerMetre = scale;
  }

  draw(t) {
    const [c, w, h] = prepared(this.canvas);
    if (!w || !h) return;
    this.frame(w, h, t);
    const log = this.log;
    if (layers.has('map')) this.drawCells(c, t);
    this.drawGrid(c, w, h);
    if (!log.has('pose')) {
      c.fillStyle = colours.quiet;
      c.fillText('The log holds no observation, so there is no place to show.', 14, h / 2);
      return;
    }
    if (layers.has('trail')) this.drawTrail(c, t);
    if (layers.has('route')) this.drawRoute(c, t);
    if (layers.has('rollouts')) this.drawRollouts(c, t);
    if (layers.has('dreams')) this.drawDream(c, t);
    this.drawGoal(c, t);
    if (layers.has('events')) this.drawEvents(c);
    if (layers.has('scan')) this.drawScan(c, t);
    if (layers.has('movers')) this.drawMovers(c, t);
    this.drawRobot(c, t);
    this.drawScale();
  }

  drawCells(c, t) {
    const tiles = this.cells(t);
    if (!tiles) return;
    const map = this.log.meta.map;
    const [x, y] = this.px(map.x_m, map.y_m);
    const size = map.resolution_m * this.pixelsPerMetre;
    c.save();
    c.imageSmoothingEnabled = false;
    c.translate(x, y);
    c.scale(size, -size);  // rows grow upwards
    c.drawImage(tiles, 0, 0);
    c.restore();
  }

  drawGrid(c, w, h) {
    const every = this.pixelsPerMetre > 14 ? 1 : 5;
    const [ox, oy] = this.px(0, 0);
    const size = every * this.pixelsPerMetre;
    c.strokeStyle = colours.grid;
    c.lineWidth = 1;
    c.beginPath();
    for (let x = ox % size; x < w; x += size) { c.moveTo(Math.round(x) + 0.5, 0); c.lineTo(Math.round(x) + 0.5, h); }
    for (let y = oy % size; y < h; y += size) { c.moveTo(0, Math.round(y) + 0.5); c.lineTo(w, Math.round(y) + 0.5); }
    c.stroke();
  }

  line(c, xy, from = 0, to = xy.length / 2, stride = 2) {
    c.beginPath();
    for (let i = from; i < to; i++) c.lineTo(...this.px(xy[stride * i], xy[stride * i + 1]));
    c.stroke();
  }

  drawTrail(c, t) {
    const { pose, obs_t: times } = this.log.a;
    const at = indexAt(times, t);
    c.lineJoin = c.lineCap = 'round';
    c.strokeStyle = colours.trail;
    c.lineWidth = 1;
    c.globalAlpha = 0.35;
    this.line(c, pose, Math.max(0, at), times.length, 3);
    c.globalAlpha = 1;
    c.lineWidth = 2.4;
    this.line(c, pose, 0, at + 1, 3);
  }

  drawRoute(c, t) {
    const route = this.log.ragged('route_xy', 'route_at', 'route_t', 2, t);
    if (!route) return;
    c.strokeStyle = colours.route;
    c.lineWidth = 1.8;
    c.setLineDash([6, 4]);
    this.line(c, route);
    c.setLineDash([]);
  }

  drawRollouts(c, t) {
    const { roll_t: times, roll_xy: xy, roll_score: score, roll_origin: origin } = this.log.a;
    const i = this.log.has('roll_t') ? indexAt(times, t) : -1;
    if (i < 0 || t - times[i] > 1) return;
    const [, k, n] = xy.shape;
    const scores = Array.from(score.subarray(i * k, (i + 1) * k), (value, at) => ({ value, at })).filter(s => Number.isFinite(s.value));
    if (!scores.length) return;
    scores.sort((a, b) => a.value - b.value);
    const [low, high] = [scores[0].value, scores[scores.length - 1].value];
    for (const { value, at } of scores) {
      const share = high > low ? (value - low) / (high - low) : 1;
      const best = at === scores[scores.length - 1].at;
      c.strokeStyle = ramp(share);
      c.globalAlpha = best ? 1 : 0.12 + 0.6 * share * share;
      c.lineWidth = best ? 2.6 : 1.1;
      c.beginPath();
      for (let j = 0; j < n; j++) {
        const from = 2 * ((i * k + at) * n + j);
        c.lineTo(...this.px(origin[2 * i] + xy[from] / 1000, origin[2 * i + 1] + xy[from + 1] / 1000));
      }
      c.stroke();
    }
    c.globalAlpha = 1;
  }

  drawDream(c, t) {
    const path = this.log.has('dream_xy') ? this.log.row('dream_xy', 'dream_t', t) : null;
    if (!path) return;
    c.strokeStyle = c.fillStyle = colours.odd;
    c.lineWidth = 1.4;
    this.line(c, path);
    for (let i = 0; i < path.length; i += 2) { c.beginPath(); c.arc(...this.px(path[i], path[i + 1]), 1.8, 0, 7); c.fill(); }
  }

  drawGoal(c, t) {
    const goal = this.log.row('goal', 'obs_t', Math.max(t, this.log.a.obs_t[0]));
    if (!goal) return;
    const [x, y] = this.px(goal[0], goal[1]);
    c.strokeStyle = c.fillStyle = colours.goal;
    c.lineWidth = 2;
    c.beginPath(); c.arc(x, y, Math.max(6, this.log.meta.goal_radius_m * this.pixelsPerMetre), 0, 7); c.stroke();
    c.beginPath(); c.arc(x, y, 3, 0, 7); c.fill();
  }

  drawEvents(c) {
    for (const event of this.log.events) {
      if (!player.kinds.has(event.kind) || event.kind === 'note') continue;
      const pose = this.log.pose(event.t);
      if (pose) symbol(c, event.kind, ...this.px(pose[0], pose[1]), 4.5);
    }
  }

  drawScan(c, t) {
    const at = this.log.has('scan') ? indexAt(this.log.a.obs_t, t) : -1;
    if (at < 0) return;
    const ranges = this.log.row('scan', 'obs_t', t);
    const { lidar } = this.log.meta.robot;
    const [x, y, yaw] = this.log.a.pose.subarray(3 * at, 3 * at + 3);  // the pose that it was measured at
    const [sx, sy] = [x + lidar.mount_x_m * Math.cos(yaw), y + lidar.mount_x_m * Math.sin(yaw)];
    const size = Math.max(2, Math.min(4, this.pixelsPerMetre * 0.06));
    c.fillStyle = colours.scan;
    for (let i = 0; i < ranges.length; i++) {
      const r = ranges[i] / 1000;
      if (r <= 0 || r >= lidar.range_m - 0.002) continue;
      const angle = yaw + lidar.angle_min_rad + i * lidar.increment_rad;
      const [px, py] = this.px(sx + r * Math.cos(angle), sy + r * Math.sin(angle));
      c.fillRect(px - size / 2, py - size / 2, size, size);
    }
  }

  drawMovers(c, t) {
    const movers = this.log.ragged('mover', 'mover_at', 'mover_t', 5, t);
    if (!movers) return;
    c.strokeStyle = colours.mover;
    c.lineWidth = 1.6;
    for (let i = 0; i < movers.length; i += 5) {
      const [x, y, vx, vy, radius] = movers.subarray(i, i + 5);
      c.beginPath(); c.arc(...this.px(x, y), Math.max(4, radius * this.pixelsPerMetre), 0, 7); c.stroke();
      c.beginPath(); c.moveTo(...this.px(x, y)); c.lineTo(...this.px(x + vx, y + vy)); c.stroke();
    }
  }

  drawRobot(c, t) {
    const pose = this.log.pose(t);
    if (!pose) return;
    const { length_m: length, width_m: width } = this.log.meta.robot;
    const size = Math.max(1, 14 / (length * this.pixelsPerMetre));  // still to be seen on a small map
    c.save();
    c.translate(...this.px(pose[0], pose[1]));
    c.rotate(-pose[2]);
    const [l, w] = [length * this.pixelsPerMetre * size, width * this.pixelsPerMetre * size];
    c.beginPath(); c.roundRect(-l / 2, -w / 2, l, w, Math.min(4, w / 4));
    c.fillStyle = colours.panel; c.globalAlpha = 0.75; c.fill(); c.globalAlpha = 1;
    const stopped = this.log.reasons(t).some(r => this.log.meta.reasons[r].stops);
    c.strokeStyle = stopped ? colours.bad : colours.text;
    c.lineWidth = 2;
    c.stroke();
    c.beginPath(); c.moveTo(l * 0.38, 0); c.lineTo(l * 0.1, -w * 0.26); c.lineTo(l * 0.1, w * 0.26); c.closePath();
    c.fillStyle = c.strokeStyle; c.fill();
    c.restore();
  }

  drawScale() {
    const metres = [0.5, 1, 2, 5, 10, 20].find(m => m * this.pixelsPerMetre >= 48) || 50;
    this.scale.style.width = `${metres * this.pixelsPerMetre}px`;
    this.scale.textContent = `${metres} m`;
  }

  listen() {
    const pointers = new Map();
    const canvas = this.canvas;
    canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); pointers.set(e.pointerId, e); });
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, e => pointers.delete(e.pointerId));
    canvas.addEventListener('pointermove', e => {
      const before = pointers.get(e.pointerId);
      if (!before) return;
      if (pointers.size === 2) {
        const [other] = [...pointers.values()].filter(p => p.pointerId !== e.pointerId);
        const apart = p => Math.hypot(p.offsetX - other.offsetX, p.offsetY - other.offsetY);
        zoomMap(apart(e) / Math.max(apart(before), 1));
      } else {
        view.dx += e.offsetX - before.offsetX;
        view.dy += e.offsetY - before.offsetY;
      }
      pointers.set(e.pointerId, e);
      redraw();
    });
    canvas.addEventListener('wheel', e => {
      e.preventDefault();
      zoomMap(Math.exp(-e.deltaY / 400), e.offsetX - canvas.clientWidth / 2, e.offsetY - canvas.clientHeight / 2);
    }, { passive: false });
    canvas.addEventListener('dblclick', fitMap);
  }
}

// Keeps the point (x, y), in pixels from the middle, where it is.
function zoomMap(factor, x = 0, y = 0) {
  const zoom = Math.min(40, Math.max(0.4, view.zoom * factor));
  const real = zoom / view.zoom;
  view.dx = x + (view.dx - x) * real;
  view.dy = y + (view.dy - y) * real;
  view.zoom = zoom;
  redraw();
}

function fitMap() {
  Object.assign(view, { zoom: 1, dx: 0, dy: 0 });
  setFollow(false);
}

const CLOSE = 70;  // pixels a metre when the robot is followed

function setFollow(on) {
  view.follow = on;
  if (on) Object.assign(view, { dx: 0, dy: 0, zoom: Math.max(view.zoom, CLOSE / (maps[0].whole || CLOSE)) });
  document.getElementById('follow').setAttribute('aria-pressed', on);
  redraw();
}
