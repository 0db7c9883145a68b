// What is held against the scene: a ruler between two clicks, and a box that cuts out what is in it.

const RULER_COLOR = [255, 255, 255];
const CROP_COLOR = [120, 220, 255];
const AXES = ['x', 'y', 'z'];

class Ruler {
  constructor(page) {
    this.page = page;
    this.ends = [];
    element('measure').addEventListener('input', () => this.clear());
  }

  get on() {
    return element('measure').checked;
  }

  clear() {
    this.ends = [];
    this.tell();
  }

  // a place in metres; the third begins again
  add(place) {
    this.ends = this.ends.length === 2 ? [place] : [...this.ends, place];
    this.tell();
  }

  length() {
    const [from, to] = this.ends;
    return Math.hypot(...from.map((value, axis) => to[axis] - value));
  }

  tell() {
    const whole = this.ends.length === 2;
    element('length').hidden = !this.on;
    element('length').textContent = whole ? this.differences()
      : this.ends.length ? 'click the other end' : 'click one end';
    this.page.outline();
  }

  differences() {
    const [from, to] = this.ends;
    const sides = AXES.map((name, axis) => `${name} ${Math.abs(to[axis] - from[axis]).toFixed(3)}`);
    return `${this.length().toFixed(3)} m (${sides.join(', ')})`;
  }

  // ends of a cross at each end, and of the line between them
  lines() {
    const arm = 0.04;
    const crosses = this.ends.flatMap(end => AXES.flatMap((_, axis) => [-arm, arm].map(
      step => end.map((value, k) => value + (k === axis ? step : 0)))));
    const between = this.ends.length === 2 ? this.ends : [];
    return { corners: [...crosses, ...between], color: RULER_COLOR };
  }

  // text and place of what is written beside the line
  label() {
    if (this.ends.length < 2) return null;
    const [from, to] = this.ends;
    return { name: `${this.length().toFixed(2)} m`, color: RULER_COLOR,
      place: from.map((value, axis) => (value + to[axis]) / 2) };
  }
}

class Crop {
  // low, extent: of the scene, in metres
  constructor(page, low, extent) {
    Object.assign(this, { page, low, extent });
    this.sides = AXES.map(name => ['from', 'to'].map(end => this.slider(name, end)));
    element('crop').addEventListener('input', () => this.changed());
    element('crop-object').addEventListener('click', () => this.around());
  }

  slider(name, end) {
    const input = Object.assign(document.createElement('input'), { type: 'range' });
    Object.assign(input, { min: 0, max: 1, step: 0.002, value: end === 'to' ? 1 : 0 });
    input.setAttribute('aria-label', `${name} ${end}`);
    input.addEventListener('input', () => this.changed());
    const label = document.createElement('label');
    label.append(`${name} ${end}`, input);
    element('crop-sides').append(label);
    return input;
  }

  get on() {
    return element('crop').checked;
  }

  // lowest and highest place as shares of the extent; whole scene where there is no box
  within() {
    if (!this.on) return [[-1, -1, -1], [2, 2, 2]];
    const values = this.sides.map(side => side.map(input => Number(input.value)));
    return [values.map(side => Math.min(...side)), values.map(side => Math.max(...side))];
  }

  // the box of the chosen object
  around() {
    const one = this.page.scene.objects[this.page.objects.chosen];
    if (!one) return;
    const corners = boxLines(one.box);
    this.sides.forEach(([from, to], axis) => {
      const shares = corners.map(corner => (corner[axis] - this.low[axis]) / this.extent[axis]);
      [from.value, to.value] = [Math.min(...shares) - 0.002, Math.max(...shares) + 0.002];
    });
    element('crop').checked = true;
    this.changed();
  }

  changed() {
    element('crop-sides').hidden = !this.on;
    this.page.outline();
  }

  lines() {
    if (!this.on) return { corners: [], color: CROP_COLOR };
    const [low, high] = this.within();
    const size = low.map((value, axis) => (high[axis] - value) * this.extent[axis]);
    const centre = low.map((value, axis) => this.low[axis] + (value + high[axis]) / 2 * this.extent[axis]);
    return { corners: boxLines([...centre, ...size, 0]), color: CROP_COLOR };
  }
}

// the twelve edges of a box as 24 corners
function boxLines([x, y, z, length, width, height, yaw]) {
  const [s, c] = [Math.sin(yaw), Math.cos(yaw)];
  const corner = k => {
    const [a, b] = [(k & 1 ? 0.5 : -0.5) * length, (k & 2 ? 0.5 : -0.5) * width];
    return [x + c * a - s * b, y + s * a + c * b, z + (k & 4 ? 0.5 : -0.5) * height];
  };
  const edges = [0, 1, 2, 3, 4, 5, 6, 7].flatMap(k => [1, 2, 4].filter(bit => !(k & bit))
    .map(bit => [k, k | bit]));
  return edges.flat().map(corner);
}
