// An equirectangular image as somebody sees it who looks somewhere: one WebGL triangle, no library. Knows no page.
//
// Conventions are those of sphere.js: longitude 0 is the middle of the image.

export const WIDEST = 4096; // what the server sends at most

const VERTEX = `
attribute vec2 corner;
varying vec2 place;
void main() {
  place = corner;
  gl_Position = vec4(corner, 0, 1);
}`;

const FRAGMENT = `
precision highp float;
varying vec2 place;         // in the view, -1 to 1
uniform sampler2D image;
uniform vec3 look;          // yaw, pitch, fov; radians
uniform vec2 pixels;        // of the canvas
uniform float columns;      // of the image

// The image has no column beyond its last: between that and the first, both are mixed by hand.
vec4 at(float u, float v) {
  float half_column = 0.5 / columns;
  float across = u < half_column ? u + 1.0 : u;
  float share = (across - (1.0 - half_column)) / (2.0 * half_column);
  vec4 inside = texture2D(image, vec2(u, v));
  vec4 seam = mix(texture2D(image, vec2(1.0 - half_column, v)), texture2D(image, vec2(half_column, v)), share);
  return share > 0.0 ? seam : inside;
}

vec4 seen(vec2 point) {
  float right = tan(look.z * 0.5);
  vec3 ray = vec3(point.x * right, point.y * right * pixels.y / pixels.x, 1.0);
  float up = ray.y * cos(look.y) + ray.z * sin(look.y);
  float ahead = ray.z * cos(look.y) - ray.y * sin(look.y);
  float longitude = atan(ray.x, ahead) + look.x;
  float latitude = atan(up, length(vec2(ray.x, ahead)));
  return at(fract(longitude / 6.283185307 + 0.5), 0.5 - latitude / 3.141592654);
}

// Four samples to a pixel, because a view of 90 degrees skips columns of a wide image.
void main() {
  vec2 quarter = 0.5 / pixels;
  vec4 sum = seen(place + quarter) + seen(place - quarter);
  sum += seen(place + quarter * vec2(1, -1)) + seen(place + quarter * vec2(-1, 1));
  gl_FragColor = sum * 0.25;
}`;

/** Draws an equirectangular image on a canvas. Throws where there is no WebGL. */
export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { preserveDrawingBuffer: true }); // kept, so that the canvas can be read and printed
    if (!this.gl) throw new Error("no WebGL");
    this.prepare();
  }

  get widest() {
    return Math.min(WIDEST, this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE));
  }

  /** Everything that is lost with a context. */
  prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    gl.attachShader(program, this.shader(gl.VERTEX_SHADER, VERTEX));
    gl.attachShader(program, this.shader(gl.FRAGMENT_SHADER, FRAGMENT));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW); // one triangle over everything
    const corner = gl.getAttribLocation(program, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    this.uniforms = Object.fromEntries(["look", "pixels", "columns"].map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    const clamped = [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T].map((side) => [side, gl.CLAMP_TO_EDGE]);
    const smooth = [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER].map((filter) => [filter, gl.LINEAR]);
    for (const [name, value] of [...clamped, ...smooth]) gl.texParameteri(gl.TEXTURE_2D, name, value);
  }

  shader(kind, source) {
    const shader = this.gl.createShader(kind);
    this.gl.shaderSource(shader, source);
    this.gl.compileShader(shader);
    return shader;
  }

  load(image) {
    const { gl } = this;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
    this.columns = image.naturalWidth;
  }

  draw({ yaw, pitch, fov }, width, height) {
    const { gl, canvas } = this;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.uniform3f(this.uniforms.look, ...[yaw, pitch, fov].map((degrees) => (degrees * Math.PI) / 180));
    gl.uniform2f(this.uniforms.pixels, width, height);
    gl.uniform1f(this.uniforms.columns, this.columns);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  release() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep only a few, and collect them late
  }
}
