// Labels corrected by hand: the chosen object renamed, joined with another, or taken away.

class Editing {
  constructor(live, names) {
    Object.assign(this, { live, page: live.page, merging: -1 });
    element('correct').hidden = !names.length;
    for (const name of names) element('new-name').append(new Option(name, name));
    const on = (id, action) => element(id).addEventListener('click', action);
    on('rename', () => this.correct('rename', { name: element('new-name').value }));
    on('delete', () => this.correct('delete'));
    on('undo', () => this.send({ kind: 'undo' }));
    on('save', () => this.save());
    on('merge', () => { this.merging = this.merging < 0 ? this.page.objects.chosen : -1; this.mark(); });
    this.mark();
  }

  // another object was chosen, perhaps the other half of a merger
  chose(row) {
    const [first, one] = [this.merging, this.page.scene.objects[row]];
    this.merging = -1;
    if (one) element('new-name').value = one.name;
    this.mark();
    if (first >= 0 && one && row !== first) this.send({ kind: 'merge', objects: [first, row] });
  }

  mark() {
    const one = this.page.objects && this.page.scene.objects[this.page.objects.chosen];
    for (const id of ['rename', 'delete', 'merge']) element(id).disabled = !one;
    element('merge').setAttribute('aria-pressed', this.merging >= 0);
    element('correcting').textContent = this.merging >= 0 ? 'choose the object that is part of it'
      : one ? `chosen: ${one.name}` : 'choose an object in the list or in the scene';
  }

  correct(kind, more = {}) {
    return this.send({ kind, objects: [this.page.objects.chosen], ...more });
  }

  async send(wish) {
    try {
      await this.page.relabel(await this.live.tell('correct', wish));
      this.say('');
    } catch (error) {
      this.say(error.message);
    }
  }

  async save() {
    try {
      this.say((await this.live.tell('save', {})).saved);
    } catch (error) {
      this.say(error.message);
    }
  }

  say(text) {
    this.mark();
    element('kept').textContent = text;
  }
}
