'use strict';
// Points and lines under a camera that turns about a place in the room; z is up, lengths are metres.

const VERTEX = `
attribute vec3 place;
attribute vec4 color;
uniform mat4 clip_from_place;
uniform float size, cut, limit;
varying vec3 shade;
void main() {
  shade = color.rgb;
  gl_Position = clip_from_place * vec4(place, 1.0);
  gl_PointSize = clamp(size / gl_Position.w, 1.0, limit);
  if (color.a < 0.5 || place.z > cut) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
}`;

const FRAGMENT = `
precision mediump float;
varying vec3 shade;
uniform bool round;
void main() {
  if (round && length(gl_PointCoord - 0.5) > 0.5) discard;
  gl_FragColor = vec4(shade, 1.0);
}`;

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

class Drawing {
  // places: (n, 3) uint16 steps of the extent, which the GPU reads as 0…1
  constructor(canvas, places, low, extent) {
    this.gl = canvas.getContext('webgl', { antialias: true, preserveDrawingBuffer: true });
    if (!this.gl) throw new Error('This browser shows no WebGL, so there is no picture.');
    this.canvas = canvas;
    [this.low, this.extent, this.count] = [low, extent, places.length / 3];
    this.program = this.build();
    [this.places, this.colors, this.corners, this.lineColors] =
      [0, 0, 0, 0].map(() => this.gl.createBuffer());
    this.numCorners = 0;
    this.fill(this.places, places);
    this.gl.enable(this.gl.DEPTH_TEST);
  }

  build() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, 'place');
    gl.bindAttribLocation(program, 1, 'color');
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      throw new Error('This browser cannot draw the points: ' + gl.getProgramInfoLog(program));
    }
    return program;
  }

  fill(buffer, values) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, buffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.DYNAMIC_DRAW);
  }

  // (n, 4) uint8; an alpha of 0 hides a point
  paint(colors) {
    this.fill(this.colors, colors);
  }

  // corners (l, 3) in 0…1 of the extent, two a line
  outline(corners, colors) {
    this.fill(this.corners, new Float32Array(corners));
    this.fill(this.lineColors, new Uint8Array(colors));
    this.numCorners = corners.length / 3;
  }

  // clip space from 0…1 of the extent
  matrix(camera) {
    const m = camera.matrix(this.canvas.width / this.canvas.height);
    const [low, extent] = [this.low, this.extent];
    const scaled = [0, 1, 2].flatMap(k => m.slice(4 * k, 4 * k + 4).map(value => value * extent[k]));
    return [...scaled, ...transform(m, ...low)];
  }

  draw(camera, pointSize, cut) {
    const gl = this.gl;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0.086, 0.094, 0.11, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);

    gl.useProgram(this.program);
    const uniform = name => gl.getUniformLocation(this.program, name);
    gl.uniformMatrix4fv(uniform('clip_from_place'), false, this.matrix(camera));
    // pixels of a point of so many centimetres at a distance of one metre
    const focal = this.canvas.height / (2 * Math.tan(FIELD_OF_VIEW / 2));
    gl.uniform1f(uniform('size'), 0.03 * pointSize * focal);
    gl.uniform1f(uniform('limit'), 40 * ratio);
    gl.uniform1f(uniform('cut'), cut);
    gl.uniform1i(uniform('round'), 1);
    this.bind(this.places, gl.UNSIGNED_SHORT, this.colors);
    gl.drawArrays(gl.POINTS, 0, this.count);

    if (this.numCorners) {
      gl.uniform1i(uniform('round'), 0);
      gl.uniform1f(uniform('cut'), 1e6);
      this.bind(this.corners, gl.FLOAT, this.lineColors);
      gl.drawArrays(gl.LINES, 0, this.numCorners);
    }
  }

  bind(places, type, colors) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, places);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, type, type === gl.UNSIGNED_SHORT, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, colors);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, 0, 0);
  }
}
