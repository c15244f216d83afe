// What is shown: the logs, the moment, and what is switched on. Everything draws itself when a frame is wanted.

const player = {
  logs: [], t: 0, duration: 0, playing: false, speed: 1, span: 0,  // span: seconds that curves show; 0 is all
  kinds: new Set(Object.keys(EVENTS)), hidden: new Set(), views: [], wanted: false, last: 0, version: 0, frames: 0,
};

function redraw() {
  if (player.wanted) return;
  player.wanted = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  player.wanted = false;
  if (player.playing) {
    const step = Math.min(0.25, (now - player.last) / 1000) * player.speed;
    player.t = Math.min(player.duration, player.t + step);
    if (player.t >= player.duration && !live.url) setPlaying(false);
  }
  player.last = now;
  player.frames++;
  for (const view of player.views) view.draw(player.t);
  if (player.playing) redraw();
}

function seek(t) {
  player.t = Math.min(player.duration, Math.max(0, t));
  redraw();
}

function setPlaying(playing) {
  if (playing && player.t >= player.duration - 1e-3) player.t = 0;
  player.playing = playing;
  player.last = performance.now();
  const button = document.getElementById('play');
  button.querySelector('path').setAttribute('d', playing ? 'M4 3h3v10H4zM9 3h3v10H9z' : 'M4 2.5v11l9-5.5z');
  button.setAttribute('aria-label', playing ? 'Pause' : 'Play');
  redraw();
}

// A tick on or back, by the observations of the first log that has any.
function step(count) {
  setPlaying(false);
  const log = player.logs.find(l => l.has('obs_t'));
  if (!log) return seek(player.t + 0.1 * count);
  const times = log.a.obs_t;
  const at = indexAt(times, player.t);
  const beyond = player.t > times[times.length - 1] + 1e-6;
  if (count > 0) return seek(at + 1 < times.length ? times[at + 1] : player.duration);
  seek(beyond || player.t - times[Math.max(at, 0)] > 1e-5 ? times[Math.max(at, 0)] : times[Math.max(at - 1, 0)]);
}

function shownEvents() {
  const all = player.logs.flatMap((log, which) => log.events.map(e => ({ ...e, which })));
  return all.filter(e => player.kinds.has(e.kind)).sort((a, b) => a.t - b.t);
}

function jump(direction) {
  const events = shownEvents();
  const next = direction > 0 ? events.find(e => e.t > player.t + 1e-3) : events.findLast(e => e.t < player.t - 1e-3);
  const label = document.getElementById('now-event');
  if (!next) {
    label.textContent = events.length ? `no event ${direction > 0 ? 'after' : 'before'} this` : 'no events';
    return;
  }
  setPlaying(false);
  seek(next.t);
  label.textContent = `${EVENTS[next.kind].name}: ${next.text}`;
}

const letter = which => player.logs.length > 1 ? 'AB'[which] : '';
