// Start: unpack the logs, build the views, listen.

const live = { url: document.body.dataset.live || '', at: 0 };
const charts = CURVES.map(curve => new Chart(curve));
let maps = [];

function warn(text) {
  const place = document.getElementById('warning');
  place.textContent = text;
  place.hidden = !text;
}

function showFacts() {
  const badge = outcome => element('span', { class: `badge ${outcome === 'success' ? 'good' : /unknown|running|interrupted/.test(outcome) ? 'warn' : 'bad'}` }, outcome.split(':')[0]);
  document.getElementById('title').textContent = player.logs.map(l => l.meta.name).join(' | ');
  document.getElementById('facts').replaceChildren(...player.logs.map((log, i) => element('div', { class: 'log' }, ...(letter(i) ? [element('b', {}, letter(i), element('i', { class: `stroke ${'ab'[i]}` }))] : []), badge(log.meta.outcome),
    ...log.meta.facts.map(([name, value]) => element('span', { title: `${name} ${value}` }, `${name} `, element('b', {}, value))))));
  warn(player.logs.map(l => l.meta.damage && `${l.meta.name}: ${l.meta.damage}`).filter(Boolean).join(' · '));
}

function showLayers() {
  document.getElementById('layers').replaceChildren(...Object.entries(LAYERS).map(([id, [name, colour, needs]]) => {
    const there = player.logs.some(l => l.has(needs));
    return element('button', { type: 'button', 'aria-pressed': there && layers.has(id), disabled: !there, 'data-layer': id, style: `--c:var(--${colour})`, title: there ? `${name} on the map` : `${name}: ${player.logs[0].meta.absent[id] || 'not in this log'}`,
      onclick: e => { toggle(layers, id); e.currentTarget.setAttribute('aria-pressed', layers.has(id)); redraw(); } }, element('span', { class: 'swatch' }), name);
  }));
}

function take(logs) {
  const first = !player.logs.length;
  const atEnd = player.t >= player.duration - 0.05;
  player.logs = logs;
  player.duration = Math.max(...logs.map(l => l.duration), 0.01);
  player.version++;
  if (maps.length !== logs.length) {
    maps = logs.map((log, i) => new MapView(log, i));
    const place = document.getElementById('maps');
    for (const node of [place, document.querySelector('.state')]) node.classList.toggle('two', logs.length > 1);
    place.replaceChildren(...maps.map(m => m.figure));
  } else logs.forEach((log, i) => maps[i].take(log));
  document.getElementById('time').max = player.duration;
  document.body.dataset.shown = 'true';
  for (const chart of charts) chart.take();
  if (first) document.getElementById('charts').replaceChildren(...charts.map(c => c.node));
  for (const part of [timeline, readout, eventList, depth, dream]) part.take();
  const bare = ['depth', 'dream'].filter(id => document.querySelector(`#${id} .empty`));
  for (const id of ['depth', 'dream']) document.getElementById(`${id}-panel`).classList.toggle('bare', bare.includes(id));
  document.querySelector('.looks').classList.toggle('full', !bare.length);
  showFacts();
  showLayers();
  player.views = [...maps, ...charts, timeline, readout, eventList, depth, dream];
  document.documentElement.style.setProperty('--dock', `${document.querySelector('.dock').offsetHeight + 8}px`);
  seek(live.url && (first || atEnd) ? player.duration : player.t);
}

const THEMES = ['auto', 'light', 'dark'];
const THEME_ICONS = {
  auto: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm0 1.6v10.8A5.4 5.4 0 0 1 8 2.6z',
  light: 'M8 4.6a3.4 3.4 0 1 0 0 6.8 3.4 3.4 0 0 0 0-6.8zM7.3 0h1.4v2.8H7.3zm0 13.2h1.4V16H7.3zM0 7.3h2.8v1.4H0zm13.2 0H16v1.4h-2.8zM2.8 1.8l2 2-1 1-2-2zm9.4 9.4 2 2-1 1-2-2zm1-9.4 1 1-2 2-1-1zM3.8 11.2l1 1-2 2-1-1z',
  dark: 'M6.2 1.2A7 7 0 1 0 14.8 10 5.8 5.8 0 0 1 6.2 1.2z',
};
function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
  const button = document.getElementById('theme');
  button.dataset.theme = theme;
  button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${THEME_ICONS[theme]}"/></svg>`;
  button.setAttribute('aria-label', `Colours: ${theme === 'auto' ? 'as the system' : theme}`);
  readColours();
  redraw();
}
const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(document.getElementById('theme').dataset.theme) + 1) % 3]);

const SPANS = [0, 60, 30, 15, 8, 4];
function changeSpan(by) {
  const now = SPANS.indexOf(player.span);
  player.span = SPANS[Math.min(SPANS.length - 1, Math.max(0, now + by))];
  redraw();
}

function changeSpeed(by) {
  const select = document.getElementById('speed');
  select.selectedIndex = Math.min(select.options.length - 1, Math.max(0, select.selectedIndex + by));
  player.speed = Number(select.value);
}

function openHelp() { const help = document.getElementById('help'); if (!help.open) help.showModal(); }

const KEYS = {
  ' ': () => setPlaying(!player.playing), ArrowRight: e => e.shiftKey ? (setPlaying(false), seek(player.t + 1)) : step(1), ArrowLeft: e => e.shiftKey ? (setPlaying(false), seek(player.t - 1)) : step(-1),
  Home: () => { setPlaying(false); seek(0); }, End: () => { setPlaying(false); seek(player.duration); }, n: () => jump(1), p: () => jump(-1), ',': () => changeSpeed(-1), '.': () => changeSpeed(1),
  '[': () => changeSpan(-1), ']': () => changeSpan(1), '+': () => zoomMap(1.25), '=': () => zoomMap(1.25), '-': () => zoomMap(0.8), 0: fitMap, f: () => setFollow(!view.follow), t: nextTheme, '?': openHelp,
};

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || document.getElementById('help').open) return;
  const on = e.target;
  if (on.matches('select') || (e.key === ' ' && on.matches('button'))) return;  // theirs
  const action = KEYS[e.key];
  if (!action) return;
  e.preventDefault();
  action(e);
}

function listen() {
  const click = (id, action) => document.getElementById(id).addEventListener('click', action);
  click('play', () => setPlaying(!player.playing)); click('back', () => step(-1)); click('forward', () => step(1));
  click('next', () => jump(1)); click('previous', () => jump(-1)); click('theme', nextTheme); click('help-open', openHelp);
  click('zoom-in', () => zoomMap(1.25)); click('zoom-out', () => zoomMap(0.8)); click('fit', fitMap); click('follow', () => setFollow(!view.follow));
  const slider = document.getElementById('time');
  slider.addEventListener('input', () => { if (player.playing) setPlaying(false); seek(slider.valueAsNumber); });
  document.getElementById('speed').addEventListener('change', e => { player.speed = Number(e.target.value); });
  const area = document.getElementById('lanes');
  const toTime = e => seek((e.offsetX - 7) / (sizeOf(area)[0] - 14) * player.duration);
  area.addEventListener('pointerdown', e => { area.setPointerCapture(e.pointerId); setPlaying(false); toTime(e); });
  area.addEventListener('pointermove', e => { if (e.buttons) toTime(e); });
  document.addEventListener('keydown', onKey);
  window.addEventListener('resize', redraw);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readColours(); redraw(); });
  window.addEventListener('error', e => warn(`The page failed: ${e.message}`));
  window.addEventListener('unhandledrejection', e => warn(`The page failed: ${e.reason}`));
}

// The robot that is still driving: the log so far, again and again.
async function poll() {
  const state = document.getElementById('live-state');
  state.hidden = false;
  let wait = 1000;
  try {
    const answer = await fetch(`${live.url}${live.url.includes('?') ? '&' : '?'}have=${live.at}`, { cache: 'no-store' });
    if (answer.status === 200) {
      live.at = answer.headers.get('X-Ticks') || 0;
      take([await readBlock(await answer.arrayBuffer())]);
    }
    const over = answer.headers.get('X-State') === 'over';
    state.textContent = over ? 'run over' : answer.status === 204 && !player.logs.length ? 'waiting for the robot' : '● live';
    state.classList.toggle('stale', over);
    if (over) return;
  } catch {
    state.textContent = 'no connection';
    state.classList.add('stale');
    wait = 3000;
  }
  setTimeout(poll, wait);
}

async function start() {
  listen();
  setTheme('auto');
  const blocks = [...document.querySelectorAll('script[type="application/gzip"]')];
  if (blocks.length) take(await Promise.all(blocks.map(b => readBlock(fromBase64(b.textContent)))));
  if (live.url) poll();
  document.body.dataset.ready = 'true';
}

start().catch(error => {
  warn(`The log cannot be shown: ${error.message}`);
  document.getElementById('waiting')?.remove();
});
