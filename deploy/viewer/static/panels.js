// The time line, the numbers of the tick, events, depth, and dreams beside what came.

const timeline = {
  rows: [],  // names of reasons, in the order of the lanes; the first lane is of events
  canvas: null,

  take() {
    this.canvas = document.getElementById('lanes');
    const total = new Map();
    for (const log of player.logs) for (const r of log.meta.reasons) total.set(r.name, (total.get(r.name) || 0) + r.seconds);
    this.rows = [...total.keys()].sort((a, b) => order(a) - order(b));
    const row = (name, label, colour, count, title) => element('li', {}, element('button', { type: 'button', 'aria-pressed': !player.hidden.has(name), title, style: `--c:var(--${colour})`,
      onclick: e => { toggle(player.hidden, name); e.currentTarget.setAttribute('aria-pressed', !player.hidden.has(name)); this.made = ''; redraw(); } },
      element('span', { class: 'swatch' }), element('span', { class: 'l' }, label), element('span', { class: 'n' }, count)));
    const events = player.logs.reduce((n, l) => n + l.events.length, 0);
    document.getElementById('lane-names').replaceChildren(
      row('events', 'events', 'text', String(events), 'Events'),
      ...this.rows.map(name => row(name, name, reasonColour(name), `${fixed(total.get(name), 1)} s`, `The governor's reason "${name}": how long it held`)));
    this.canvas.style.height = `calc(var(--lane) * ${this.rows.length + 1})`;
    this.made = '';
  },

  // Lanes are inset by half of the slider's thumb, so that it stands under its moment. They are drawn when they change.
  draw(t) {
    const [w, h] = sizeOf(this.canvas);
    if (!w) return;
    document.getElementById('moment').style.transform = `translateX(${7 + t / (player.duration || 1) * (w - 14)}px)`;
    this.drawClock(t);
    const made = [w, h, colourVersion, player.version, [...player.hidden], [...player.kinds]].join();
    if (made !== this.made) this.drawLanes();
    this.made = made;
  },

  drawLanes() {
    const [c, w, h] = prepared(this.canvas);
    const lane = h / (this.rows.length + 1);
    const x = s => 7 + s / (player.duration || 1) * (w - 14);
    c.fillStyle = colours.line;
    for (let i = 0; i <= this.rows.length; i++) c.fillRect(7, Math.round((i + 1) * lane) - 1, w - 14, 1);
    player.logs.forEach((log, which) => {
      const [top, height] = player.logs.length > 1 ? [which * (lane - 3) / 2, (lane - 3) / 2 - 0.5] : [0, lane - 4];
      for (const mark of log.marks) {
        const name = log.meta.reasons[mark.reason].name;
        if (player.hidden.has(name)) continue;
        c.fillStyle = colours[reasonColour(name)];
        c.globalAlpha = /^(speed|acceleration)/.test(name) ? 0.5 : 1;  // routine
        const row = this.rows.indexOf(name) + 1;
        c.fillRect(x(mark.from), row * lane + 1.5 + top, Math.max(2, x(mark.to) - x(mark.from)), height);
      }
    });
    c.globalAlpha = 1;
    if (!player.hidden.has('events')) for (const e of shownEvents()) symbol(c, e.kind, x(e.t), lane / 2 - 0.5, Math.min(5, lane / 2.6));
  },

  drawClock(t) {
    const slider = document.getElementById('time');
    if (document.activeElement !== slider || Math.abs(slider.valueAsNumber - t) > 1e-4) slider.value = t;
    slider.style.setProperty('--part', `${100 * t / (player.duration || 1)}%`);
    slider.setAttribute('aria-valuetext', `${t.toFixed(2)} of ${player.duration.toFixed(2)} seconds`);
    const text = `${t.toFixed(2)} s`;
    const clock = document.getElementById('clock');
    if (clock.dataset.text !== text) {
      clock.dataset.text = text;
      clock.replaceChildren(text, element('small', {}, ` / ${player.duration.toFixed(1)}`));
    }
  },
};

const order = name => ['bad', 'third', 'warn', 'odd', 'fifth', 'asked', 'fourth'].indexOf(reasonColour(name));

function toggle(set, value) { if (!set.delete(value)) set.add(value); }

// The numbers of the tick, a column a log.
const readout = {
  take() {
    const head = player.logs.length > 1 ? [element('thead', {}, element('tr', {}, element('th'), ...player.logs.map((l, i) => element('th', {}, `${letter(i)} ${l.meta.name}`))))] : [];
    this.cells = {};
    const rows = ROWS.map(([name]) => {
      this.cells[name] = player.logs.map(() => element('td', name === 'Governor' ? { class: 'wrap' } : {}, '–'));
      return element('tr', {}, element('th', { scope: 'row' }, name), ...this.cells[name]);
    });
    document.getElementById('readout').replaceChildren(element('table', { class: 'readout' }, ...head, element('tbody', {}, ...rows)));
  },

  draw(t) {
    player.logs.forEach((log, which) => {
      for (const [name, text] of ROWS) {
        const cell = this.cells[name][which];
        const value = text(log, t);
        const plain = typeof value === 'string' ? value : value.map(v => v.name).join();
        if (cell.dataset.text === plain) continue;
        cell.dataset.text = plain;
        cell.replaceChildren(...(typeof value === 'string' ? [value] : value.map(r => element('span', { class: 'reason', style: `--c:var(--${reasonColour(r.name)})` }, element('span', { class: 'swatch' }), r.name))));
      }
    });
  },
};

const triple = (row, digits = 2) => row ? `${fixed(row[0], digits)}  ${fixed(row[1], digits)}  ${fixed(row[2], digits)}` : '–';
const one = (log, array, times, t, digits, unit) => { const row = log.row(array, times, t); return row ? `${fixed(row[0], digits)}${unit}` : '–'; };

const ROWS = [
  ['Tick', (log, t) => { const i = log.has('dec_t') ? indexAt(log.a.dec_t, t) : -1; return i < 0 ? '–' : `${log.a.dec_n[i]} · ${log.meta.whys[log.a.why[i]] || 'no reason given'}`; }],
  ['Governor', (log, t) => { if (!log.has('gov_t')) return 'no governed command in this log'; const r = log.reasons(t); return r.length ? r.map(i => log.meta.reasons[i]) : 'as asked'; }],
  ['Asked', (log, t) => triple(log.row('command', 'dec_t', t))],
  ['Governed', (log, t) => triple(log.row('gov', 'gov_t', t))],
  ['Measured', (log, t) => triple(log.row('twist', 'obs_t', t))],
  ['Pose', (log, t) => { const p = log.pose(t); return p ? `${fixed(p[0])}  ${fixed(p[1])} m  ${fixed(p[2] * 180 / Math.PI, 0)}°` : '–'; }],
  ['To goal', (log, t) => { const p = log.pose(t), g = log.row('goal', 'obs_t', t); return p && g ? `${fixed(Math.hypot(g[0] - p[0], g[1] - p[1]))} m` : '–'; }],
  ['Clearance', (log, t) => one(log, 'clearance', 'obs_t', t, 2, ' m')],
  ['Value', (log, t) => one(log, 'value', 'dec_t', t, 3, '')],
  ['Decision', (log, t) => `${one(log, 'total_ms', 'dec_t', t, 1, ' ms')}, input ${one(log, 'age_ms', 'dec_t', t, 1, ' ms')} old`],
];

const eventList = {
  take() {
    const kinds = Object.keys(EVENTS).filter(k => player.logs.some(l => l.events.some(e => e.kind === k)));
    const count = kind => player.logs.reduce((n, l) => n + l.events.filter(e => e.kind === kind).length, 0);
    document.getElementById('kinds').replaceChildren(...kinds.map(kind => element('button', { type: 'button', 'aria-pressed': player.kinds.has(kind), style: `--c:var(--${EVENTS[kind].colour})`,
      onclick: e => { toggle(player.kinds, kind); e.currentTarget.setAttribute('aria-pressed', player.kinds.has(kind)); this.list(); redraw(); } },
      element('span', { style: `color:var(--${EVENTS[kind].colour})` }, SYMBOLS[kind]), `${EVENTS[kind].name} ${count(kind)}`)));
    this.list();
  },

  list() {
    this.events = shownEvents();
    document.getElementById('events-count').textContent = this.events.length ? String(this.events.length) : '';
    const none = element('li', { class: 'empty' }, player.logs.some(l => l.events.length) ? 'All kinds are switched off.' : 'No stop, near miss, late tick or model error in this log.');
    this.buttons = this.events.map(e => element('button', { type: 'button', title: e.text, onclick: () => { setPlaying(false); seek(e.t); document.getElementById('now-event').textContent = e.text; } },
      element('span', { class: 't' }, e.t.toFixed(1)), element('span', { class: 'g', style: `--c:var(--${EVENTS[e.kind].colour})`, 'aria-hidden': 'true' }, SYMBOLS[e.kind]),
      element('span', { class: 'x' }, `${letter(e.which)} ${e.text}`.trim())));
    document.getElementById('events').replaceChildren(...(this.buttons.length ? this.buttons.map(b => element('li', {}, b)) : [none]));
    this.at = -2;
  },

  draw(t) {
    const at = this.events.findLastIndex(e => e.t <= t + 1e-3);
    if (at === this.at) return;
    if (this.buttons[this.at]) this.buttons[this.at].removeAttribute('aria-current');
    this.at = at;
    const button = this.buttons[at];
    if (!button) return;
    button.setAttribute('aria-current', 'true');
    const list = document.getElementById('events');
    const top = button.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 24) list.scrollTop = top - list.clientHeight / 2;
  },
};

const depth = {
  take() {
    const place = document.getElementById('depth');
    const shown = player.logs.filter(l => l.has('depth'));
    if (!shown.length) return place.replaceChildren(element('p', { class: 'empty' }, player.logs[0].meta.absent.depth || 'No depth image in this log.'));
    this.canvases = shown.map(log => ({ log, canvas: element('canvas', { role: 'img', 'aria-label': `Depth image of ${log.meta.name}, near is dark`, style: `--ratio:${log.a.depth.shape[2]}/${log.a.depth.shape[1]}` }), shown: -1 }));
    place.replaceChildren(...this.canvases.map(d => d.canvas));
    document.getElementById('depth-range').textContent = `to ${fixed(shown[0].meta.robot.depth_range_m, 1)} m, near is dark`;
  },

  draw(t) {
    for (const d of this.canvases || []) {
      const { depth: values, depth_t: times } = d.log.a;
      const [, h, w] = values.shape;
      const at = indexAt(times, t);
      if (at === d.shown) continue;
      d.shown = at;
      d.canvas.width = w; d.canvas.height = h;
      const image = new ImageData(w, h);
      for (let i = 0; at >= 0 && i < w * h; i++) {
        const v = values[at * w * h + i];
        image.data.set(v ? [30 + v * 0.88, 40 + v * 0.8, 90 + v * 0.6, 255] : [0, 0, 0, 0], 4 * i);
      }
      d.canvas.getContext('2d').putImageData(image, 0, 0);
    }
  },
};

// Error of the dream that began at the moment, by how far it looks ahead.
const dream = {
  take() {
    this.log = player.logs.find(l => l.has('dream_t'));
    const place = document.getElementById('dream');
    if (!this.log) return place.replaceChildren(element('p', { class: 'empty' }, player.logs[0].meta.absent.error || 'No dreams were rolled.'));
    this.canvas = element('canvas', { role: 'img', 'aria-label': 'Error of the dream from this moment by horizon' });
    this.rows = [['lidar', 'odd', 'dream_lidar'], ['lidar held', 'fourth', 'dream_held'], ['pose', 'governed', 'dream_pose'], ['collision', 'bad', 'dream_collision']].filter(([, , name]) => this.log.has(name));
    const key = element('div', { class: 'key' }, ...this.rows.map(([label, colour]) => element('span', { style: `--c:var(--${colour})` }, element('i'), label)));
    this.words = document.getElementById('dream-return');
    place.replaceChildren(key, this.canvas);
    this.made = '';
  },

  draw(t) {
    if (!this.log) return;
    const i = indexAt(this.log.a.dream_t, t);
    const made = [i, ...sizeOf(this.canvas), colourVersion, player.version].join();
    if (i < 0 || made === this.made) return;
    this.made = made;
    const [c, w, h] = prepared(this.canvas);
    const steps = this.log.a.dream_lidar.shape[1], dt = this.log.meta.robot.period_ms / 1000;
    const row = name => this.log.a[name].subarray(i * steps, (i + 1) * steps);
    const high = Math.max(0.2, ...this.rows.flatMap(([, , name]) => [...row(name)].filter(Number.isFinite)));
    const x = k => 26 + (k + 1) / steps * (w - 34), y = v => h - 15 - Math.min(1, v / high) * (h - 22);
    c.font = '10px system-ui, sans-serif';
    c.fillStyle = colours.quiet; c.strokeStyle = colours.line;
    for (const v of ticks(0, high, 3)) { c.beginPath(); c.moveTo(26, y(v)); c.lineTo(w - 8, y(v)); c.stroke(); c.fillText(String(+v.toPrecision(2)), 2, y(v) + 3); }
    c.textAlign = 'right'; c.fillText(`${fixed(steps * dt, 1)} s ahead`, w - 8, h - 3); c.textAlign = 'left';
    for (const [, colour, name] of this.rows) {
      c.strokeStyle = colours[colour];
      c.lineWidth = 1.6;
      c.beginPath();
      row(name).forEach((v, k) => { if (Number.isFinite(v)) c.lineTo(x(k), y(v)); });
      c.stroke();
    }
    const said = this.log.a.dream_return, came = this.log.row('real_return', 'obs_t', t);
    this.words.textContent = `m ahead; return ${fixed(said && said[i])}, came ${fixed(came && came[0])}`;
  },
};
