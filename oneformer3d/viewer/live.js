// What a served page can do besides: ask any text, and show the images that saw a point.

class Live {
  constructor(page, { asks, max_text: maxText, cameras, exports, names, renders }) {
    Object.assign(this, { page, asks, cameras, exports });
    this.pictures = new Pictures(page, cameras);
    element('ask').hidden = !asks;
    element('question').maxLength = maxText;
    element('ask').addEventListener('submit', event => {
      event.preventDefault();
      this.ask(element('question').value);
    });

    element('images-section').hidden = !cameras.length;
    cameras.forEach((camera, view) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = camera.frame;
      button.addEventListener('click', () => this.lookThrough(view));
      element('images').append(item(button));
    });
    this.editing = new Editing(this, names);
    this.rendering = new Rendering(page, renders);
    element('exports-section').hidden = !exports.length;
    this.nameExports(null);
  }

  // files of the objects that are shown, rows; null for the whole scene
  nameExports(rows) {
    const query = rows ? `?objects=${rows.join(',')}` : '';
    const links = this.exports.filter(() => !rows || rows.length).map(kind => {
      const link = document.createElement('a');
      [link.href, link.textContent] = [`export/${kind}${query}`, kind.toUpperCase()];
      link.download = '';
      return link;
    });
    const what = rows ? `of ${rows.length} object${rows.length === 1 ? '' : 's'} shown` : 'of the whole scene';
    element('exports').replaceChildren(...links, what);
  }

  // what the server says to a request with JSON; its complaint is thrown
  async tell(where, content) {
    const response = await fetch(where, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(content),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }

  async ask(text) {
    if (!text.trim()) return;
    const { answers } = this.page.scene;
    let answer;
    try {
      const negatives = element('unlike').value.split(',').filter(one => one.trim());
      answer = await this.tell('ask', { text, negatives });
    } catch (error) {
      element('ranked').replaceChildren(item(error.message));
      return;
    }
    answer.scores = await unpack(answer.scores);
    const before = answers.findIndex(one => one.text === answer.text);
    if (before >= 0) answers[before] = answer;
    else answers.push(answer);
    this.page.listTexts();
    this.page.choose(before >= 0 ? before : answers.length - 1);
    element('question').value = '';
  }

  // --- images ------------------------------------------------------------------------------

  async showViews(point) {
    element('seen').replaceChildren();
    if (point < 0 || !this.cameras.length) return;
    const seen = await (await fetch(`views/${point}`)).json();
    if (this.page.picked !== point) return;
    element('seen').replaceChildren(...seen.map(({ view, frame, place }) => {
      const pixel = Object.assign(document.createElement('span'), { className: 'pixel' });
      [pixel.style.left, pixel.style.top] = place.map(share => `${100 * share}%`);
      const picture = document.createElement('div');
      picture.style.position = 'relative';
      picture.append(this.pictures.image(view), pixel);
      const caption = document.createElement('figcaption');
      caption.textContent = frame;
      const figure = document.createElement('figure');
      figure.append(picture, caption);
      figure.addEventListener('click', () => this.lookThrough(view));
      return figure;
    }));
    if (!seen.length) element('seen').textContent = 'no image saw this point';
  }

  // a small picture around the pixel that shows a mask best
  crop(best) {
    const view = best ? this.cameras.findIndex(camera => camera.frame === best.frame) : -1;
    if (view < 0) return null;
    const { half, size } = this.cameras[view];
    const scale = 320 / size[1];
    const node = document.createElement('span');
    node.className = 'crop';
    node.style.backgroundImage = `url(image/${view})`;
    const [x, y] = best.uv.map((value, axis) => {
      const side = axis ? 320 * half[1] / half[0] : 320;
      return Math.min(0, Math.max(44 - side, 22 - scale * value));
    });
    node.style.backgroundPosition = `${x}px ${y}px`;
    return node;
  }

  // --- cameras -----------------------------------------------------------------------------

  // look through the picture at a place of the canvas if nothing stands before it
  click(x, y, distance) {
    if (!element('cameras').checked) return false;
    const [view, away] = this.pictures.pick(x, y);
    if (view < 0 || away > distance) return false;
    this.lookThrough(view);
    return true;
  }

  lookThrough(view) {
    const { centre, axes, frame } = this.cameras[view];
    this.page.camera.lookFrom(centre, axes[2]);
    this.pictures.through = view;
    this.page.outline();
    this.page.show(-1);
    element('picked').hidden = false;
    element('said').textContent = frame;
    element('seen').replaceChildren(this.pictures.image(view));
  }
}
