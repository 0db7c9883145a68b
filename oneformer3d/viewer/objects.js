// The list of objects: which are shown, which one alone, which one is chosen, and flying there.

class Objects {
  constructor(page) {
    this.page = page;
    this.hidden = new Set();
    [this.alone, this.chosen] = [-1, -1];
    element('objects-all').addEventListener('click', () => this.showAll());
  }

  // whether points of an object are drawn; a row beyond the list is no object
  shows(row) {
    if (this.alone >= 0) return row === this.alone;
    return !this.hidden.has(row);
  }

  // rows of the objects that are shown, null where nothing was left out
  selection() {
    if (this.alone < 0 && !this.hidden.size) return null;
    return this.page.scene.objects.map((_, row) => row).filter(row => this.shows(row));
  }

  list() {
    const { objects } = this.page.scene;
    // with none left a deletion can still be taken back
    element('objects-section').hidden = !objects.length && element('correct').hidden;
    this.lines = objects.map((one, row) => this.line(one, row));
    element('objects').replaceChildren(...this.lines);
    this.mark();
  }

  line(one, row) {
    const box = Object.assign(document.createElement('input'), { type: 'checkbox', title: 'show' });
    box.addEventListener('change', () => {
      if (box.checked) this.hidden.delete(row);
      else this.hidden.add(row);
      this.changed();
    });
    const fly = this.page.flyButton(one.box);
    fly.className = 'fly';
    fly.addEventListener('click', () => this.choose(row));
    fly.append(chip(one.color), one.name, count(one.score.toFixed(2)));

    const only = Object.assign(document.createElement('button'), { type: 'button', className: 'only' });
    only.textContent = 'only';
    only.addEventListener('click', () => {
      this.alone = this.alone === row ? -1 : row;
      this.changed();
    });
    const line = item(box);
    line.append(fly, only);
    return line;
  }

  choose(row) {
    this.chosen = row;
    this.mark();
    if (row >= 0) this.lines[row].scrollIntoView({ block: 'nearest' });
    if (this.page.live) this.page.live.editing.chose(row);
  }

  // other objects are there now
  reset() {
    this.hidden.clear();
    [this.alone, this.chosen] = [-1, -1];
    this.list();
  }

  showAll() {
    this.hidden.clear();
    this.alone = -1;
    this.changed();
  }

  changed() {
    this.mark();
    this.page.recolor();
  }

  mark() {
    this.lines.forEach((line, row) => {
      const [box, fly, only] = line.children;
      box.checked = this.shows(row);
      box.disabled = this.alone >= 0;
      fly.setAttribute('aria-pressed', row === this.chosen);
      only.setAttribute('aria-pressed', row === this.alone);
    });
    if (this.page.live) this.page.live.nameExports(this.selection());
  }
}
