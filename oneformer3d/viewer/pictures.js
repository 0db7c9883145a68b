// The images of a served scene, each small on the rectangle of the camera that took it.

const FRUSTUM = 0.25; // metres from the camera to the rectangle that stands for its image
const THUMB = 128; // pixels of the longer side of a small picture
const CAMERA_COLOR = [255, 200, 80];

class Pictures {
  constructor(page, cameras) {
    Object.assign(this, { page, cameras });
    this.through = -1; // the camera that is looked through, whose picture would hide the scene
    this.asked = false;
    this.columns = Math.ceil(Math.sqrt(cameras.length));
    this.sheet = document.createElement('canvas');
    const rows = Math.ceil(cameras.length / (this.columns || 1));
    [this.sheet.width, this.sheet.height] = [THUMB * this.columns, THUMB * rows];
  }

  // corners in metres of each image's rectangle: top left, top right, bottom right, bottom left
  corners(view) {
    const { centre, axes, half } = this.cameras[view];
    const [right, down, forward] = axes;
    return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([u, v]) => centre.map((c, k) =>
      c + FRUSTUM * (u * half[0] * right[k] + v * half[1] * down[k] + forward[k])));
  }

  // ends of lines: four rays and the rectangle of each image
  lines() {
    const corners = this.cameras.flatMap(({ centre }, view) => this.corners(view)
      .flatMap((corner, k, all) => [centre, corner, corner, all[(k + 1) % 4]]));
    return { corners, color: CAMERA_COLOR };
  }

  show(on) {
    const views = on ? this.cameras.map((_, view) => view).filter(view => view !== this.through) : [];
    const triangles = list => [0, 1, 2, 0, 2, 3].map(k => list[k]);
    this.page.drawing.showPictures(
      views.flatMap(view => triangles(this.corners(view))),
      views.flatMap(view => triangles(this.onSheet(view))),
    );
    if (on && !this.asked) this.load();
  }

  // where a picture is on the sheet, as shares of it, corner by corner
  onSheet(view) {
    const [width, height] = this.size(view);
    const [left, top] = this.cell(view);
    return [[0, 0], [1, 0], [1, 1], [0, 1]].map(([u, v]) => [
      (left + 0.5 + u * (width - 1)) / this.sheet.width,
      (top + 0.5 + v * (height - 1)) / this.sheet.height,
    ]);
  }

  size(view) {
    const [height, width] = this.cameras[view].size;
    const scale = THUMB / Math.max(height, width);
    return [Math.round(width * scale), Math.round(height * scale)];
  }

  cell(view) {
    return [THUMB * (view % this.columns), THUMB * Math.floor(view / this.columns)];
  }

  // one after the other, so that other answers of the server need not wait
  async load() {
    this.asked = true;
    const pen = this.sheet.getContext('2d');
    for (let view = 0; view < this.cameras.length; view++) {
      const image = this.image(view);
      try {
        await image.decode();
      } catch {
        continue; // a picture that cannot be had stays black
      }
      pen.drawImage(image, ...this.cell(view), ...this.size(view));
      this.page.drawing.setSheet(this.sheet);
      this.page.redraw();
    }
    element('images').dataset.loaded = 'yes';
  }

  image(view) {
    const image = document.createElement('img');
    [image.src, image.alt] = [`image/${view}`, this.cameras[view].frame];
    return image;
  }

  // the nearest picture at a place of the canvas, −1 for none, and its distance
  pick(x, y) {
    let [best, nearest] = [-1, Infinity];
    for (let view = 0; view < this.cameras.length; view++) {
      if (view === this.through) continue;
      const seen = this.corners(view).map(corner => this.page.project(corner));
      const distance = seen.reduce((sum, corner) => sum + corner[2] / 4, 0);
      if (seen.every(corner => corner[2] > 0) && isWithin(x, y, seen) && distance < nearest) {
        [best, nearest] = [view, distance];
      }
    }
    return [best, nearest];
  }
}

// whether a place lies within a convex polygon: on one side of all its edges
function isWithin(x, y, corners) {
  const sides = corners.map(([ax, ay], k) => {
    const [bx, by] = corners[(k + 1) % corners.length];
    return Math.sign((bx - ax) * (y - ay) - (by - ay) * (x - ax));
  });
  return sides.every(side => side >= 0) || sides.every(side => side <= 0);
}
