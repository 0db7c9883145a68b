// What a served page can do besides: ask any text, and show the images that saw a point.

const FRUSTUM = 0.25; // metres from the camera to the rectangle that stands for its image

class Live {
  constructor(page, { asks, max_text: maxText, cameras, exports }) {
    Object.assign(this, { page, asks, cameras });
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
    element('exports-section').hidden = !exports.length;
    for (const kind of exports) {
      const link = document.createElement('a');
      [link.href, link.textContent, link.download] = [`export/${kind}`, kind.toUpperCase(), ''];
      element('exports').append(link);
    }
  }

  async ask(text) {
    if (!text.trim()) return;
    const { answers } = this.page.scene;
    const response = await fetch('ask', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ text }),
    });
    const answer = await response.json();
    if (!response.ok) {
      element('ranked').replaceChildren(item(answer.error));
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
      picture.append(this.picture(view), pixel);
      const caption = document.createElement('figcaption');
      caption.textContent = frame;
      const figure = document.createElement('figure');
      figure.append(picture, caption);
      figure.addEventListener('click', () => this.lookThrough(view));
      return figure;
    }));
    if (!seen.length) element('seen').textContent = 'no image saw this point';
  }

  picture(view) {
    const image = document.createElement('img');
    [image.src, image.alt] = [`image/${view}`, this.cameras[view].frame];
    return image;
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

  // ends of lines: four rays and the rectangle of each image
  frustums() {
    return this.cameras.flatMap(({ centre, axes, half }) => {
      const [right, down, forward] = axes;
      const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([u, v]) => centre.map((c, k) =>
        c + FRUSTUM * (u * half[0] * right[k] + v * half[1] * down[k] + forward[k])));
      return corners.flatMap((corner, k) => [centre, corner, corner, corners[(k + 1) % 4]]);
    });
  }

  lookThrough(view) {
    const { centre, axes } = this.cameras[view];
    this.page.camera.lookFrom(centre, axes[2]);
    this.page.show(-1);
    element('picked').hidden = false;
    element('said').textContent = this.cameras[view].frame;
    element('seen').replaceChildren(this.picture(view));
  }
}
