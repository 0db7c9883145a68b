// Points, lines and small pictures, drawn with WebGL.

const POINT_VERTEX = `
attribute vec3 place;
attribute vec4 color;
uniform mat4 clip_from_place;
uniform vec3 low, high;
uniform float size, limit;
varying vec3 shade;
void main() {
  shade = color.rgb;
  gl_Position = clip_from_place * vec4(place, 1.0);
  gl_PointSize = clamp(size / gl_Position.w, 1.0, limit);
  bool inside = all(lessThanEqual(low, place)) && all(lessThanEqual(place, high));
  if (color.a < 0.5 || !inside) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
}`;

const POINT_FRAGMENT = `
precision mediump float;
varying vec3 shade;
uniform bool round;
void main() {
  if (round && length(gl_PointCoord - 0.5) > 0.5) discard;
  gl_FragColor = vec4(shade, 1.0);
}`;

const PICTURE_VERTEX = `
attribute vec3 place;
attribute vec2 color;
uniform mat4 clip_from_place;
varying vec2 pixel;
void main() {
  pixel = color;
  gl_Position = clip_from_place * vec4(place, 1.0);
}`;

const PICTURE_FRAGMENT = `
precision mediump float;
varying vec2 pixel;
uniform sampler2D sheet;
void main() {
  gl_FragColor = vec4(texture2D(sheet, pixel).rgb, 1.0);
}`;

const EVERYWHERE = [[-1e6, -1e6, -1e6], [1e6, 1e6, 1e6]];

class Drawing {
  // places: (n, 3) uint16 steps of the extent, which the GPU reads as 0…1
  constructor(canvas, places, low, extent) {
    this.gl = canvas.getContext('webgl', { antialias: true, preserveDrawingBuffer: true });
    if (!this.gl) throw new Error('This browser shows no WebGL, so there is no picture.');
    this.canvas = canvas;
    [this.low, this.extent, this.count] = [low, extent, places.length / 3];
    this.program = this.build(POINT_VERTEX, POINT_FRAGMENT);
    this.pictureProgram = this.build(PICTURE_VERTEX, PICTURE_FRAGMENT);
    [this.places, this.colors, this.corners, this.lineColors, this.pictureCorners, this.pixels] =
      [0, 0, 0, 0, 0, 0].map(() => this.gl.createBuffer());
    [this.numCorners, this.numPictureCorners] = [0, 0];
    this.sheet = this.gl.createTexture();
    this.fill(this.places, places);
    this.gl.enable(this.gl.DEPTH_TEST);
  }

  build(vertex, fragment) {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
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

  // lines: corners in metres, two a line, and one colour of each list
  outline(lines) {
    const corners = lines.flatMap(line => line.corners.flatMap(corner => this.share(corner)));
    const colors = lines.flatMap(line => line.corners.flatMap(() => [...line.color, 255]));
    this.fill(this.corners, new Float32Array(corners));
    this.fill(this.lineColors, new Uint8Array(colors));
    this.numCorners = corners.length / 3;
  }

  // corners in metres of triangles, and where each is on a sheet of pictures (0…1)
  showPictures(corners, pixels) {
    this.fill(this.pictureCorners, new Float32Array(corners.flatMap(corner => this.share(corner))));
    this.fill(this.pixels, new Float32Array(pixels.flat()));
    this.numPictureCorners = corners.length;
  }

  // a canvas with all pictures
  setSheet(canvas) {
    const gl = this.gl;
    gl.bindTexture(gl.TEXTURE_2D, this.sheet);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, canvas);
    for (const [name, value] of [
      [gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) gl.texParameteri(gl.TEXTURE_2D, name, value);
  }

  // metres → 0…1 of the extent
  share(place) {
    return place.map((value, axis) => (value - this.low[axis]) / this.extent[axis]);
  }

  // clip space from 0…1 of the extent
  matrix(camera) {
    const m = camera.matrix(this.canvas.width / this.canvas.height);
    const [low, extent] = [this.low, this.extent];
    const scaled = [0, 1, 2].flatMap(k => m.slice(4 * k, 4 * k + 4).map(value => value * extent[k]));
    return [...scaled, ...transform(m, ...low)];
  }

  // within: lowest and highest place (0…1 of the extent) of what is drawn
  draw(camera, pointSize, within) {
    const gl = this.gl;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0.086, 0.094, 0.11, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);

    const uniform = this.use(this.program, camera);
    // pixels of a point of so many centimetres at a distance of one metre
    const focal = this.canvas.height / (2 * Math.tan(FIELD_OF_VIEW / 2));
    gl.uniform1f(uniform('size'), 0.03 * pointSize * focal);
    gl.uniform1f(uniform('limit'), 40 * ratio);
    this.limit(uniform, within);
    gl.uniform1i(uniform('round'), 1);
    this.bind(this.places, gl.UNSIGNED_SHORT, this.colors, gl.UNSIGNED_BYTE, 4);
    gl.drawArrays(gl.POINTS, 0, this.count);

    if (this.numCorners) {
      gl.uniform1i(uniform('round'), 0);
      this.limit(uniform, EVERYWHERE);
      this.bind(this.corners, gl.FLOAT, this.lineColors, gl.UNSIGNED_BYTE, 4);
      gl.drawArrays(gl.LINES, 0, this.numCorners);
    }
    if (this.numPictureCorners) {
      this.use(this.pictureProgram, camera);
      gl.bindTexture(gl.TEXTURE_2D, this.sheet);
      this.bind(this.pictureCorners, gl.FLOAT, this.pixels, gl.FLOAT, 2);
      gl.drawArrays(gl.TRIANGLES, 0, this.numPictureCorners);
    }
  }

  use(program, camera) {
    const gl = this.gl;
    gl.useProgram(program);
    const uniform = name => gl.getUniformLocation(program, name);
    gl.uniformMatrix4fv(uniform('clip_from_place'), false, this.matrix(camera));
    return uniform;
  }

  limit(uniform, [low, high]) {
    this.gl.uniform3fv(uniform('low'), low);
    this.gl.uniform3fv(uniform('high'), high);
  }

  bind(places, placeType, values, valueType, numValues) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, places);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, placeType, placeType === gl.UNSIGNED_SHORT, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, values);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, numValues, valueType, valueType === gl.UNSIGNED_BYTE, 0, 0);
  }
}
