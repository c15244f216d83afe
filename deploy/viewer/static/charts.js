// Curves over time. They are drawn once; a frame only moves the line of the moment.

const PAD = { left: 38, right: 8, top: 5, bottom: 13 };

// What is shown: title, unit, series (name, colour, array, its times, column), and a word for what a log lacks.
const CURVES = [
  { id: 'vx', title: 'Forward', unit: 'm/s', zero: true, column: 0, parts: 'velocity' },
  { id: 'vy', title: 'Sideways', unit: 'm/s', zero: true, column: 1, parts: 'velocity' },
  { id: 'yaw', title: 'Turn', unit: 'rad/s', zero: true, column: 2, parts: 'velocity' },
  { id: 'value', title: 'Value', unit: '', parts: [['critic', 'governed', 'value', 'dec_t'], ['return from here', 'measured', 'real_return', 'obs_t'], ['imagined', 'fifth', 'dream_return', 'dream_t'], ['best candidate', 'third', 'roll_best', 'roll_t']] },
  { id: 'reward', title: 'Reward', unit: 'a tick', fine: true, parts: [['estimated', 'measured', 'reward', 'obs_t']] },
  { id: 'uncertainty', title: 'Uncertainty', unit: '', fine: true, from: 0, parts: [['disagreement of the priors', 'odd', 'roll_doubt', 'roll_t']] },
  { id: 'error', title: 'Model error', unit: 'm, lidar', from: 0, parts: 'dream' },
  { id: 'clearance', title: 'Clearance', unit: 'm', from: 0, top: 2, parts: [['body to nearest hit', 'scan', 'clearance', 'obs_t']] },
  { id: 'latency', title: 'Latency', unit: 'ms, deadline dashed', log: true, parts: 'latency' },
];

function seriesOf(curve, log) {
  const found = [];
  const add = (name, colour, array, times, column = 0, step = false) => {
    if (log.has(array)) found.push({ name, colour, values: log.a[array], times: log.a[times], width: log.a[array].length / log.a[times].length, column, step });
  };
  if (curve.parts === 'velocity') {
    add('asked', 'asked', 'command', 'dec_t', curve.column, true);
    add('governed', 'governed', 'gov', 'gov_t', curve.column, true);
    add('measured', 'measured', 'twist', 'obs_t', curve.column);
  } else if (curve.parts === 'latency') {
    add('decision', 'governed', 'total_ms', 'dec_t');
    const names = log.meta.details.filter(n => n.endsWith('_ms'));
    names.forEach((name, i) => add(name.slice(0, -3), ['measured', 'third', 'fifth'][i % 3], `detail.${name}`, 'dec_t'));
    add('age of input', 'fourth', 'age_ms', 'dec_t');
    add('late by', 'late', 'late_ms', 'stat_t');
  } else if (curve.parts === 'dream') {
    (log.meta.dream_steps || []).forEach((k, i) => add(`${fixed(k * log.meta.robot.period_ms / 1000, 1)} s`, ['governed', 'third', 'odd'][i], 'dream_lidar', 'dream_t', k - 1));
  } else {
    for (const part of curve.parts) add(...part);
  }
  return found;
}

class Chart {
  constructor(curve) {
    this.curve = curve;
    this.canvas = element('canvas', { role: 'img' });
    this.key = element('div', { class: 'key' });
    this.cursor = element('div', { class: 'cursor' });
    this.plot = element('div', { class: 'plot' }, this.canvas, this.cursor);
    this.word = element('p', { class: 'empty', hidden: true });
    this.node = element('section', { class: 'chart', 'data-curve': curve.id, 'aria-label': curve.title },
      element('header', {}, element('h2', {}, curve.title, ' ', element('span', {}, curve.unit)), this.key), this.plot, this.word);
    this.listen();
  }

  take() {
    this.series = player.logs.map(log => seriesOf(this.curve, log));
    const empty = this.series.every(s => !s.length);
    this.plot.hidden = empty;
    this.empty = empty;
    this.node.classList.toggle('bare', empty);
    this.word.hidden = !empty;
    this.word.textContent = player.logs.map(l => l.meta.absent[this.curve.id]).find(Boolean) || 'Not in this log.';
    this.canvas.setAttribute('aria-label', `${this.curve.title} over time: ${this.series.flat().map(s => s.name).join(', ')}`);
    this.range = this.limits();
    this.made = '';
    const names = this.series[0].length ? this.series[0] : this.series.flat();
    this.values = names.map(s => element('b', {}, '–'));
    this.key.replaceChildren(...names.map((s, i) => element('span', { style: `--c:var(--${s.colour})` }, element('i'), s.name, this.values[i])));
    this.named = names;
  }

  limits() {
    let [low, high] = [Infinity, -Infinity];
    for (const s of this.series.flat()) {
      for (let i = s.column; i < s.values.length; i += s.width) {
        const v = s.values[i];
        if (!Number.isFinite(v) || (this.curve.log && v <= 0)) continue;
        if (v < low) low = v;
        if (v > high) high = v;
      }
    }
    if (low > high) return [0, 1];
    if (this.curve.log) return [Math.max(0.1, 10 ** Math.floor(Math.log10(low))), Math.max(10 ** Math.ceil(Math.log10(high * 1.05)), player.logs[0].meta.robot.period_ms * 1.5)];
    if (this.curve.zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
    if (this.curve.from !== undefined) low = this.curve.from;
    if (this.curve.top) high = Math.min(high, this.curve.top);
    const room = Math.max((high - low) * 0.08, this.curve.zero ? 0.1 : 1e-3);
    return [this.curve.from !== undefined ? low : low - room, high + room];
  }

  span() {
    if (!player.span) return [0, player.duration];
    const from = Math.min(Math.max(0, player.t - player.span / 2), Math.max(0, player.duration - player.span));
    return [from, from + player.span];
  }

  place(w, h, [a, b]) {
    const [low, high] = this.range;
    const [bottom, top] = [h - PAD.bottom, PAD.top];
    this.x = t => PAD.left + (t - a) / (b - a || 1) * (w - PAD.left - PAD.right);
    const share = this.curve.log ? v => Math.log(Math.max(v, low) / low) / Math.log(high / low) : v => (v - low) / (high - low);
    this.y = v => bottom - Math.min(1.02, Math.max(-0.02, share(v))) * (bottom - top);
  }

  drawStill(w, h, span) {
    const made = [w, h, ...span, colourVersion, player.version].join();
    if (made === this.made) return;
    this.made = made;
    const [c] = prepared(this.canvas);
    this.drawAxes(c, w, h, span);
    c.save();
    c.beginPath(); c.rect(PAD.left, 0, w - PAD.left - PAD.right, h); c.clip();
    if (this.curve.id === 'latency') this.drawDeadlines(c, h);
    this.series.forEach((list, which) => list.forEach(s => this.drawLine(c, s, which, span)));
    c.restore();
  }

  drawAxes(c, w, h, [a, b]) {
    c.font = '10px system-ui, sans-serif';
    c.fillStyle = colours.quiet;
    c.strokeStyle = colours.line;
    c.lineWidth = 1;
    c.textAlign = 'right'; c.textBaseline = 'middle';
    for (const v of this.curve.log ? decades(...this.range) : ticks(...this.range, h > 80 ? 4 : 3)) {
      const y = Math.round(this.y(v)) + 0.5;
      c.beginPath(); c.moveTo(PAD.left, y); c.lineTo(w - PAD.right, y); c.stroke();
      c.fillText((Math.abs(v) >= 1000 ? `${v / 1000}k` : String(+v.toPrecision(3))).replace('-', '−'), PAD.left - 5, y);
    }
    c.textAlign = 'center'; c.textBaseline = 'bottom';
    for (const t of ticks(a, b, Math.max(2, Math.floor(w / 90)))) c.fillText(`${+t.toPrecision(4)} s`, Math.max(this.x(t), PAD.left + 8), h + 1);
  }

  drawDeadlines(c, h) {
    c.strokeStyle = colours.bad;
    c.setLineDash([3, 3]);
    const y = this.y(player.logs[0].meta.robot.period_ms);
    c.beginPath(); c.moveTo(0, y); c.lineTo(1e5, y); c.stroke();
    c.setLineDash([]);
    for (const log of player.logs) for (const e of log.events) {
      if (e.kind !== 'late') continue;
      c.fillStyle = colours.late;
      c.fillRect(this.x(e.t) - 1, PAD.top, 2, h - PAD.bottom - PAD.top);
    }
  }

  drawLine(c, s, which, [a, b]) {
    c.strokeStyle = colours[s.colour];
    c.lineWidth = which ? 1 : 1.4;
    c.setLineDash(which ? [4, 3] : []);
    c.lineJoin = 'round';
    const first = Math.max(0, indexAt(s.times, a)), last = Math.min(s.times.length - 1, indexAt(s.times, b) + 1);
    c.beginPath();
    let y = null;
    for (let i = first; i <= last; i++) {
      const v = s.values[i * s.width + s.column];
      if (!Number.isFinite(v)) { y = null; continue; }
      const x = this.x(s.times[i]);
      if (y === null) c.moveTo(x, this.y(v));
      else if (s.step) c.lineTo(x, y);
      y = this.y(v);
      c.lineTo(x, y);
    }
    c.stroke();
    c.setLineDash([]);
  }

  draw(t) {
    if (this.empty || !this.visible) return;
    const [w, h] = sizeOf(this.canvas);
    if (!w) return;
    const span = this.span();
    this.place(w, h, span);
    this.drawStill(w, h, span);
    this.cursor.style.transform = `translateX(${this.x(t)}px)`;
    this.named.forEach((named, i) => {
      const there = this.series.map(list => list.find(s => s.name === named.name)).filter(Boolean);
      const text = there.map(s => (this.curve.fine ? short : fixed)(valueAt(s, t), this.curve.log ? 1 : 2)).join(' | ');
      if (this.values[i].dataset.text !== text) this.values[i].dataset.text = this.values[i].textContent = text;
    });
  }

  listen() {
    const toTime = e => {
      const [a, b] = this.span();
      seek(a + (e.offsetX - PAD.left) / (sizeOf(this.canvas)[0] - PAD.left - PAD.right) * (b - a));
    };
    this.canvas.addEventListener('pointerdown', e => { this.canvas.setPointerCapture(e.pointerId); setPlaying(false); toTime(e); });
    this.canvas.addEventListener('pointermove', e => { if (e.buttons) toTime(e); });
    new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; if (this.visible) redraw(); }).observe(this.canvas);
  }
}

function valueAt(s, t) {
  const i = indexAt(s.times, t);
  return i < 0 ? NaN : s.values[i * s.width + s.column];
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  if (!(rough > 0)) return [low];
  const size = 10 ** Math.floor(Math.log10(rough));
  const every = [1, 2, 5, 10].map(m => m * size).find(m => m >= rough);
  const out = [];
  for (let v = Math.ceil(low / every) * every; v <= high + 1e-9; v += every) out.push(Math.abs(v) < every / 1e6 ? 0 : v);
  return out;
}

function decades(low, high) {
  const out = [];
  for (let v = 10 ** Math.ceil(Math.log10(low) - 1e-9); v <= high * 1.0001; v *= 10) out.push(v);
  return out;
}
