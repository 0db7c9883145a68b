// What a fitted field looks like from where the camera stands, drawn when it has come to rest.

const REST = 400; // milliseconds without a movement

class Rendering {
  constructor(page, names) {
    Object.assign(this, { page, timer: 0, busy: false });
    element('rendered-section').hidden = !names.length;
    this.on = names.length > 0;
    for (const name of names) element('rendered-what').append(new Option(name, name));
    for (const id of ['rendered-on', 'rendered-what']) {
      element(id).addEventListener('input', () => this.moved());
    }
    this.image = Object.assign(document.createElement('img'), { id: 'rendered', hidden: true });
    this.image.alt = 'the field as it is rendered from here';
    for (const end of ['load', 'error']) this.image.addEventListener(end, () => this.ended());
    if (this.on) element('canvas').after(this.image);
  }

  moved() {
    if (!this.on) return;
    this.image.hidden = !element('rendered-on').checked;
    clearTimeout(this.timer);
    if (element('rendered-on').checked) this.timer = setTimeout(() => this.draw(), REST);
  }

  // one after the other: a field takes its time
  draw() {
    const { camera } = this.page;
    const numbers = [...camera.eye(), ...camera.axes().flat()].map(value => value.toFixed(5));
    const source = `render/${element('rendered-what').value}?${numbers.join(',')}`;
    if (source === this.source || this.busy) return;
    [this.source, this.busy] = [source, true];
    this.image.src = source;
  }

  ended() {
    this.busy = false;
    this.draw(); // the camera may stand elsewhere by now
  }
}
