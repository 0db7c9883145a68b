// The page: what the scene knows, what is shown of it, and what a click says.

const PACKED = ['heat', 'xyz', 'rgb', 'semantic', 'instance', 'panoptic', 'mask', 'truth', 'verdict'];

const element = id => document.getElementById(id);

async function unpack({ bits, data }) {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const buffer = await new Response(stream).arrayBuffer();
  return bits === 8 ? new Uint8Array(buffer) : new Uint16Array(buffer);
}

async function readScene() {
  const scene = JSON.parse(element('scene').textContent);
  for (const name of PACKED) scene[name] = scene[name] && await unpack(scene[name]);
  for (const answer of scene.answers) answer.scores = await unpack(answer.scores);
  return scene;
}

class Page {
  constructor(scene) {
    this.scene = scene;
    this.count = scene.xyz.length / 3;
    this.camera = new Camera(scene.focus);
    this.drawing = new Drawing(element('canvas'), scene.xyz, scene.low, scene.extent);
    this.shown = scene.classes.map(() => true);
    this.text = scene.answers.length ? 0 : -1;
    this.picked = -1;
    this.colors = new Colors(this);
    this.ruler = new Ruler(this);
    this.crop = new Crop(this, scene.low, scene.extent);
    this.objects = new Objects(this);
    this.live = scene.live && new Live(this, scene.live);
    this.fillPanel();
    this.listen();
    this.recolor();
  }

  // --- panel -------------------------------------------------------------------------------

  fillPanel() {
    const { scene } = this;
    element('title').textContent = scene.title;
    const drawn = this.count < scene.num_points ? `, ${this.count.toLocaleString()} drawn` : '';
    element('size').textContent = `${scene.num_points.toLocaleString()} points${drawn}`;

    for (const mode of this.colors.modes()) element('color').append(new Option(mode, mode));
    element('color').value = scene.answers.length ? 'similarity' : scene.classes.length ? 'class' : 'rgb';

    const cut = scene.ceiling === null ? 1 : (scene.ceiling - scene.low[2]) / scene.extent[2];
    element('cut').checked = scene.ceiling !== null;
    element('height').value = cut;
    element('boxes').checked = element('names').checked = true;
    element('threshold').value = scene.threshold;

    this.listClasses();
    this.objects.list();
    this.listTexts();
  }

  listClasses() {
    const { classes } = this.scene;
    element('classes-section').hidden = !classes.length;
    element('classes').replaceChildren();
    const order = classes.map((_, k) => k).filter(k => classes[k].count);
    order.sort((a, b) => classes[b].count - classes[a].count);
    for (const k of order) {
      const box = Object.assign(document.createElement('input'), { type: 'checkbox', checked: this.shown[k] });
      box.addEventListener('change', () => { this.shown[k] = box.checked; this.recolor(); });
      const line = document.createElement('label');
      line.append(box, chip(classes[k].color), classes[k].name, count(classes[k].count));
      element('classes').append(item(line));
    }
  }

  listTexts() {
    const { answers } = this.scene;
    element('asked').hidden = !answers.length && !(this.live && this.live.asks);
    element('texts').replaceChildren(...answers.map((answer, row) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = answer.text;
      button.addEventListener('click', () => this.choose(row));
      return button;
    }));
  }

  // labels of the same points that were corrected
  async relabel(labels) {
    for (const [name, value] of Object.entries(labels)) {
      this.scene[name] = value && PACKED.includes(name) ? await unpack(value) : value;
    }
    this.listClasses();
    this.objects.reset();
    this.show(-1);
    this.recolor();
  }

  // show what one of the texts found
  choose(row) {
    this.text = row;
    element('color').value = 'similarity';
    this.recolor();
  }

  showRanked() {
    element('ranked').replaceChildren();
    if (this.text < 0) return;
    [...element('texts').children].forEach((button, row) => {
      button.setAttribute('aria-pressed', row === this.text);
    });
    const masks = this.foundMasks();
    const threshold = Number(element('threshold').value);
    element('threshold-value').textContent = threshold.toFixed(2);
    if (!masks.length) element('ranked').append(item(this.foundPoints(threshold)));
    for (const mask of masks) {
      const line = this.flyButton(mask.box);
      const crop = this.live && this.live.crop(mask.views[0]);
      line.append(...(crop ? [crop] : []), chip(this.colors.heat(mask.score)), this.nameOf(mask), count(mask.score.toFixed(2)));
      line.title = mask.views.map(view => `${view.frame} at ${view.uv.map(Math.round)}`).join('\n');
      element('ranked').append(item(line));
    }
  }

  // where no mask is ranked the points may still have an answer of their own
  foundPoints(threshold) {
    const { mask, answers } = this.scene;
    if (!answers[this.text].found) return 'nothing like that here';
    const found = mask.reduce((sum, _, point) => sum + (this.scoreAt(point) >= threshold), 0);
    return found ? `${(100 * found / this.count).toFixed(1)} % of the points` : 'nothing like that here';
  }

  flyButton(box) {
    const button = document.createElement('button');
    button.type = 'button';
    button.addEventListener('click', () => { this.camera.flyTo(box); this.redraw(); });
    return button;
  }

  // --- colours -----------------------------------------------------------------------------

  // the score of the chosen text at a point, 0…1
  scoreAt(point, text = this.text) {
    if (text < 0) return 0;
    const mask = this.scene.mask[point];
    const { scores } = this.scene.answers[text];
    return mask < scores.length ? scores[mask] / 255 : 0;
  }

  recolor() {
    const { semantic, instance } = this.scene;
    const isShown = point =>
      this.shown[semantic[point]] !== false && this.objects.shows(instance[point]);
    const threshold = Number(element('threshold').value);
    this.painted = this.colors.paint(element('color').value, threshold, isShown);
    this.drawing.paint(this.painted);
    this.showRanked();
    this.outline();
  }

  outline() {
    const boxes = element('boxes').checked ? this.outlined() : [];
    const lines = boxes.map(one => ({ corners: boxLines(one.box), color: one.color }));
    const cameras = Boolean(this.live) && element('cameras').checked;
    if (cameras) lines.push(this.live.pictures.lines());
    if (this.live) this.live.pictures.show(cameras);
    this.drawing.outline([...lines, this.ruler.lines(), this.crop.lines()]);

    const above = ({ box, name, color }) =>
      ({ name, color, place: [box[0], box[1], box[2] + box[5] / 2] });
    const names = element('names').checked ? this.outlined().map(above) : [];
    const measured = this.ruler.label();
    this.labels = [...names, ...(measured ? [measured] : [])].map(({ name, color, place }) => {
      const label = document.createElement('span');
      label.textContent = name;
      label.style.color = `rgb(${color})`;
      return [label, place];
    });
    element('labels').replaceChildren(...this.labels.map(([label]) => label));
    this.redraw();
  }

  // what has a box and a name: the answers to a text, else all objects
  outlined() {
    if (element('color').value !== 'similarity') {
      return this.scene.objects.filter((one, row) => this.shown[one.label] !== false && this.objects.shows(row));
    }
    return this.foundMasks().map(mask => {
      const name = `${this.nameOf(mask)} ${mask.score.toFixed(2)}`;
      return { box: mask.box, color: this.colors.heat(mask.score), name };
    });
  }

  // the first masks are the objects; the others are pieces of what no object covers
  nameOf(mask) {
    if (mask.mask < this.scene.num_whole) return mask.name;
    return mask.name ? `piece of ${mask.name}` : 'piece';
  }

  foundMasks() {
    if (this.text < 0) return [];
    const threshold = Number(element('threshold').value);
    return this.scene.answers[this.text].ranked.filter(mask => mask.score >= threshold);
  }

  // --- picture -----------------------------------------------------------------------------

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    if (this.live) this.live.rendering.moved();
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawing.draw(this.camera, Number(element('point-size').value), this.within());
      const { clientWidth: width, clientHeight: height } = element('canvas');
      const matrix = this.camera.matrix(width / height);
      for (const [label, place] of this.labels) put(label, matrix, place, width, height);
      element('marker').hidden = this.picked < 0;
      if (this.picked >= 0) put(element('marker'), matrix, this.place(this.picked), width, height);
    });
  }

  // lowest and highest place of what is drawn, as shares of the extent
  within() {
    const [low, high] = this.crop.within();
    if (element('cut').checked) high[2] = Math.min(high[2], Number(element('height').value));
    return [low, high];
  }

  // metres
  place(point) {
    const { xyz, low, extent } = this.scene;
    return [0, 1, 2].map(axis => low[axis] + xyz[3 * point + axis] / 65535 * extent[axis]);
  }

  // pixel of a place in metres within the canvas, and its distance
  project(place) {
    const { clientWidth: width, clientHeight: height } = element('canvas');
    const matrix = this.camera.matrix(width / height);
    const [x, y, , w] = transform(matrix, ...place);
    return [(x / w + 1) / 2 * width, (1 - y / w) / 2 * height, w];
  }

  // the nearest drawn point within so many pixels of a place in the canvas, −1 for none
  pick(x, y, radius = 6) {
    const { xyz } = this.scene;
    const { clientWidth: width, clientHeight: height } = element('canvas');
    const m = this.drawing.matrix(this.camera);
    const [low, high] = this.within();
    let [best, nearest] = [-1, Infinity];
    for (let point = 0; point < this.count; point++) {
      const [a, b, c] = [xyz[3 * point], xyz[3 * point + 1], xyz[3 * point + 2]];
      const [px, py, pz] = [a / 65535, b / 65535, c / 65535];
      if (!this.painted[4 * point + 3] || px < low[0] || py < low[1] || pz < low[2] ||
          px > high[0] || py > high[1] || pz > high[2]) continue;
      const w = m[3] * px + m[7] * py + m[11] * pz + m[15];
      if (w <= 0) continue;
      const u = ((m[0] * px + m[4] * py + m[8] * pz + m[12]) / w + 1) / 2 * width - x;
      const v = (1 - (m[1] * px + m[5] * py + m[9] * pz + m[13]) / w) / 2 * height - y;
      // beside the pointer counts as a little farther away
      const off = Math.hypot(u, v);
      const distance = w * (1 + 0.01 * off);
      if (off <= radius && distance < nearest) [best, nearest] = [point, distance];
    }
    return best;
  }

  describe(point) {
    const { scene } = this;
    const label = scene.classes[scene.semantic[point]];
    const row = scene.instance[point];
    const object = scene.objects[row];
    const lines = [this.place(point).map(value => value.toFixed(2)).join(', ') + ' m'];
    if (label) lines.unshift(`class ${label.name}`);
    if (object) {
      lines.push(`instance ${row} ${object.name}, score ${object.score.toFixed(2)}`);
      lines.push(`${object.count.toLocaleString()} points, ` +
        object.box.slice(3, 6).map(value => value.toFixed(2)).join(' × ') + ' m');
    }
    if (scene.truth) {
      const truth = scene.truth_classes[scene.truth[point]];
      lines.push(truth ? `ground truth ${truth.name}` : 'no ground truth');
    }
    scene.answers.forEach((answer, text) => {
      lines.push(`${answer.text}: ${this.scoreAt(point, text).toFixed(2)}`);
    });
    return lines.join('\n');
  }

  click(x, y) {
    const point = this.pick(x, y);
    const distance = point < 0 ? Infinity : this.project(this.place(point))[2];
    if (this.ruler.on) {
      if (point >= 0) this.ruler.add(this.place(point));
      return;
    }
    if (this.live && this.live.click(x, y, distance)) return;
    this.show(point);
    this.objects.choose(point < 0 || !this.scene.objects[this.scene.instance[point]]
      ? -1 : this.scene.instance[point]);
  }

  show(point) {
    this.picked = point;
    element('picked').hidden = point < 0;
    if (point >= 0) element('said').textContent = this.describe(point);
    if (this.live) this.live.showViews(point);
    this.redraw();
  }

  // --- what the user does ------------------------------------------------------------------

  listen() {
    const on = (id, action, event = 'input') => element(id).addEventListener(event, action);
    for (const id of ['color', 'threshold']) on(id, () => this.recolor());
    for (const id of ['boxes', 'names', 'cameras']) on(id, () => this.outline());
    for (const id of ['point-size', 'cut', 'height']) on(id, () => this.redraw());
    on('reset', () => {
      this.camera.reset();
      if (this.live) this.live.pictures.through = -1;
      this.outline();
      this.show(-1);
    }, 'click');
    for (const [id, all] of [['all', true], ['none', false]]) {
      on(id, () => {
        this.shown = this.shown.map(() => all);
        document.querySelectorAll('#classes input').forEach(box => { box.checked = all; });
        this.recolor();
      }, 'click');
    }
    window.addEventListener('resize', () => this.redraw());
    this.listenToPointer(element('canvas'));
  }

  listenToPointer(canvas) {
    let from = null, moved = 0;
    canvas.addEventListener('contextmenu', event => event.preventDefault());
    canvas.addEventListener('pointerdown', event => {
      [from, moved] = [event, 0];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', event => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from.clientX, event.clientY - from.clientY];
      moved += Math.abs(dx) + Math.abs(dy);
      if (event.buttons & 2 || event.shiftKey) this.camera.move(dx, dy, canvas.clientHeight);
      else this.camera.turn(dx, dy);
      from = event;
      this.redraw();
    });
    canvas.addEventListener('pointerup', event => {
      if (from && moved < 4) this.click(event.offsetX, event.offsetY);
      from = null;
    });
    canvas.addEventListener('wheel', event => {
      event.preventDefault();
      this.camera.zoom(Math.exp(0.001 * event.deltaY));
      this.redraw();
    }, { passive: false });
  }
}

function put(node, matrix, place, width, height) {
  const [x, y, , w] = transform(matrix, ...place);
  node.style.left = `${(x / w + 1) / 2 * width}px`;
  node.style.top = `${(1 - y / w) / 2 * height}px`;
  node.style.visibility = w > 0 ? 'visible' : 'hidden';
}

function chip(color) {
  const node = document.createElement('span');
  node.className = 'chip';
  node.style.background = `rgb(${color})`;
  return node;
}

function count(value) {
  const node = document.createElement('span');
  node.className = 'count';
  node.textContent = value.toLocaleString();
  return node;
}

function item(content) {
  const node = document.createElement('li');
  node.append(content);
  return node;
}

document.addEventListener('DOMContentLoaded', async () => {
  try {
    window.page = new Page(await readScene());
  } catch (error) {
    element('fault').textContent = error.message;
    element('fault').hidden = false;
  }
  document.body.dataset.ready = 'yes';
});
