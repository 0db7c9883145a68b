'use strict';
// A camera that turns about a place in the room; z is up, lengths are metres.

const FIELD_OF_VIEW = 45 * Math.PI / 180;

class Camera {
  // focus: centre and size of what is seen at first
  constructor(focus) {
    this.focus = focus;
    this.reset();
  }

  reset() {
    this.target = this.focus.slice(0, 3);
    this.yaw = -0.25 * Math.PI;
    this.pitch = 0.9;
    this.distance = Math.max(0.5, 1.3 * Math.hypot(...this.focus.slice(3)));
  }

  // right, up and backward in the room
  axes() {
    const [sy, cy] = [Math.sin(this.yaw), Math.cos(this.yaw)];
    const [sp, cp] = [Math.sin(this.pitch), Math.cos(this.pitch)];
    return [[-sy, cy, 0], [-sp * cy, -sp * sy, cp], [cp * cy, cp * sy, sp]];
  }

  eye() {
    const back = this.axes()[2];
    return this.target.map((value, axis) => value + this.distance * back[axis]);
  }

  // the column-major matrix from metres to clip space
  matrix(aspect) {
    const [right, up, back] = this.axes();
    const eye = this.eye();
    const focal = 1 / Math.tan(FIELD_OF_VIEW / 2);
    const [near, far] = [this.distance / 200, this.distance * 4 + 100];
    const [a, b] = [(far + near) / (near - far), 2 * far * near / (near - far)];
    const rows = [right, up, back].map(axis => [...axis, -dot(axis, eye)]);
    const clip = [
      rows[0].map(value => value * focal / aspect),
      rows[1].map(value => value * focal),
      rows[2].map((value, column) => value * a + (column === 3 ? b : 0)),
      rows[2].map(value => -value),
    ];
    return [0, 1, 2, 3].flatMap(column => clip.map(row => row[column]));
  }

  turn(dx, dy) {
    this.yaw -= 0.006 * dx;
    this.pitch = Math.min(1.57, Math.max(-1.57, this.pitch + 0.006 * dy));
  }

  // metres per pixel at the target, so that what is under the pointer stays there
  move(dx, dy, height) {
    const step = 2 * Math.tan(FIELD_OF_VIEW / 2) * this.distance / height;
    const [right, up] = this.axes();
    this.target = this.target.map((value, k) => value - step * (dx * right[k] - dy * up[k]));
  }

  zoom(factor) {
    this.distance = Math.min(1000, Math.max(0.1, this.distance * factor));
  }

  // stand at a place and look along a direction
  lookFrom(place, forward) {
    this.distance = 1;
    this.target = place.map((value, axis) => value + forward[axis]);
    this.pitch = Math.asin(Math.min(1, Math.max(-1, -forward[2])));
    this.yaw = Math.atan2(-forward[1], -forward[0]);
  }

  flyTo(box) {
    this.target = box.slice(0, 3);
    this.distance = Math.max(1.2, 2.4 * Math.hypot(...box.slice(3, 6)));
  }
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// columns of a 4 × 4 matrix times (x, y, z, 1)
function transform(m, x, y, z) {
  return [0, 1, 2, 3].map(row => m[row] * x + m[4 + row] * y + m[8 + row] * z + m[12 + row]);
}
