// Logs as packed by deploy/viewer/pack.py: a length, a JSON header, then arrays; gzipped.

const KINDS = { f4: Float32Array, i4: Int32Array, u4: Uint32Array, i2: Int16Array, u2: Uint16Array, i1: Int8Array, u1: Uint8Array };

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text.trim());
  const raw = atob(text.trim());
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function readBlock(bytes) {
  if (!('DecompressionStream' in window)) throw new Error('this browser cannot unpack gzip; use one from 2023 or newer');
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const [name, entry] of Object.entries(header.arrays)) {
    const count = entry.shape.reduce((a, b) => a * b, 1);
    const values = new KINDS[entry.dtype](buffer, 4 + length + entry.at, count);
    if (entry.differences) {
      const row = count / entry.shape[0];
      for (let i = row; i < count; i++) values[i] += values[i - row];  // modulo the type's width
    }
    arrays[name] = values;
    values.shape = entry.shape;
  }
  return new Episode(header.meta, arrays);
}

// Index of the last time that is not after t; -1 before the first.
function indexAt(times, t) {
  let low = 0, high = times ? times.length : 0;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= t + 1e-6) low = middle + 1; else high = middle;
  }
  return low - 1;
}

class Episode {
  constructor(meta, arrays) {
    this.meta = meta;
    this.a = arrays;
    this.duration = meta.duration_s;
    this.events = meta.events.map(([t, kind, text]) => ({ t, kind, text }));
    this.marks = [];
    const { mark_t: spans, mark_reason: of } = arrays;
    for (let i = 0; of && i < of.length; i++) this.marks.push({ reason: of[i], from: spans[2 * i], to: spans[2 * i + 1] });
  }

  has(name) { return this.a[name] !== undefined && this.a[name].length > 0; }

  // A row of an array at a time, by the times' name; null before the first or where there is none.
  row(name, times, t) {
    const i = this.has(name) ? indexAt(this.a[times], t) : -1;
    if (i < 0) return null;
    const width = this.a[name].length / this.a[times].length;
    return this.a[name].subarray(i * width, (i + 1) * width);
  }

  // Rows of a ragged array at a time: `at` holds where each time's rows begin.
  ragged(name, at, times, width, t) {
    const i = this.has(times) ? indexAt(this.a[times], t) : -1;
    if (i < 0 || !this.a[name]) return null;
    return this.a[name].subarray(this.a[at][i] * width, this.a[at][i + 1] * width);
  }

  pose(t) {
    const i = this.has('pose') ? indexAt(this.a.obs_t, t) : -1;
    if (i < 0) return null;
    const [p, times] = [this.a.pose, this.a.obs_t];
    const from = [p[3 * i], p[3 * i + 1], p[3 * i + 2]];
    if (i + 1 >= times.length) return from;
    const share = Math.min(1, Math.max(0, (t - times[i]) / (times[i + 1] - times[i] || 1)));
    const turn = Math.atan2(Math.sin(p[3 * i + 5] - from[2]), Math.cos(p[3 * i + 5] - from[2]));
    return [from[0] + share * (p[3 * i + 3] - from[0]), from[1] + share * (p[3 * i + 4] - from[1]), from[2] + share * turn];
  }

  // Reasons that the governor gives at a time.
  reasons(t) { return this.marks.filter(m => m.from - 0.02 <= t && t <= m.to + 0.02).map(m => m.reason); }
}
