// Colours from the style sheet, and canvases that are sharp on every screen.

const colours = {};
const COLOUR_NAMES = ['bg', 'panel', 'line', 'line-strong', 'text', 'quiet', 'accent', 'unknown', 'free', 'occupied', 'grid', 'asked', 'governed',
  'measured', 'third', 'fourth', 'fifth', 'route', 'trail', 'scan', 'mover', 'goal', 'bad', 'warn', 'good', 'odd', 'late', 'ramp-0', 'ramp-1', 'ramp-2'];
let colourVersion = 0;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of COLOUR_NAMES) colours[name] = style.getPropertyValue(`--${name}`).trim();
  colourVersion++;
}

function rgb(hex) {
  const n = parseInt(hex.slice(1, 7), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

function mixed(a, b, share) {
  return a.map((v, i) => Math.round(v + share * (b[i] - v)));
}

// Low to high as one of three colours and what lies between.
function ramp(share) {
  const s = Math.min(1, Math.max(0, share)) * 2;
  const [low, high] = s < 1 ? ['ramp-0', 'ramp-1'] : ['ramp-1', 'ramp-2'];
  return `rgb(${mixed(rgb(colours[low]), rgb(colours[high]), s % 1 || (s >= 2 ? 1 : 0))})`;
}

// Sizes in CSS pixels, told by the browser when they change: asking for them in every frame would lay out the page each time.
const sizes = new WeakMap();
const sizeObserver = new ResizeObserver(entries => {
  for (const entry of entries) sizes.set(entry.target, [entry.contentRect.width, entry.contentRect.height]);
  redraw();
});

function sizeOf(canvas) {
  if (!sizes.has(canvas)) {
    sizes.set(canvas, [canvas.clientWidth, canvas.clientHeight]);
    sizeObserver.observe(canvas);
  }
  return sizes.get(canvas);
}

// A context in CSS pixels, and the canvas's size in them.
function prepared(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2.5);
  const [w, h] = sizeOf(canvas);
  const [pw, ph] = [Math.round(w * ratio), Math.round(h * ratio)];
  if (canvas.width !== pw || canvas.height !== ph) { canvas.width = pw; canvas.height = ph; }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  return [context, w, h];
}

const EVENTS = {
  stop: { name: 'stop', colour: 'bad' }, near: { name: 'near miss', colour: 'warn' }, late: { name: 'late tick', colour: 'late' },
  error: { name: 'model error', colour: 'odd' }, collision: { name: 'collision', colour: 'bad' }, arrived: { name: 'arrived', colour: 'good' },
  note: { name: 'note', colour: 'fourth' },
};
const SYMBOLS = { stop: '■', near: '▲', late: '●', error: '◆', collision: '✕', arrived: '⚑', note: '│' };

function symbol(c, kind, x, y, size) {
  c.fillStyle = c.strokeStyle = colours[EVENTS[kind].colour];
  c.lineWidth = 1.6;
  c.beginPath();
  if (kind === 'stop') c.rect(x - size * 0.8, y - size * 0.8, size * 1.6, size * 1.6);
  else if (kind === 'near') { c.moveTo(x, y - size); c.lineTo(x + size, y + size * 0.8); c.lineTo(x - size, y + size * 0.8); c.closePath(); }
  else if (kind === 'late') c.arc(x, y, size * 0.85, 0, 7);
  else if (kind === 'error') { c.moveTo(x, y - size * 1.1); c.lineTo(x + size * 1.1, y); c.lineTo(x, y + size * 1.1); c.lineTo(x - size * 1.1, y); c.closePath(); }
  else if (kind === 'collision') { c.moveTo(x - size, y - size); c.lineTo(x + size, y + size); c.moveTo(x + size, y - size); c.lineTo(x - size, y + size); c.stroke(); return; }
  else if (kind === 'arrived') { c.moveTo(x - size * 0.7, y - size); c.lineTo(x + size, y - size * 0.3); c.lineTo(x - size * 0.7, y + size * 0.3); c.closePath(); c.fill(); c.fillRect(x - size * 0.9, y - size, 1.5, size * 2); return; }
  else { c.rect(x - 0.75, y - size, 1.5, size * 2); }
  c.fill();
}

// The governor's reasons in fixed colours: what stops is red, what slows is amber, what merely limits is quiet.
const REASON_COLOURS = [
  [/^stopped|tilt/, 'bad'], [/^slowed/, 'warn'], [/^refused/, 'odd'], [/expired|stale|no observation|no command/, 'third'],
  [/^speed/, 'fourth'], [/^acceleration/, 'asked'],
];
const reasonColour = name => (REASON_COLOURS.find(([pattern]) => pattern.test(name)) || [0, 'fifth'])[1];

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'style') node.style.cssText = value;
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children);
  return node;
}

const fixed = (value, digits = 2) => value === null || value === undefined || !Number.isFinite(value) ? '–' : (value.toFixed(digits).replace(/^-(?=0\.?0*$)/, '')).replace('-', '−');

// The same, with more digits for what is small.
const short = (value, digits) => fixed(value, Math.abs(value) < 0.1 && Math.abs(value) >= 1e-5 ? Math.max(digits, 4) : digits);
