// <pano-view>: a panorama to look around in, with the outlines of a model's views over it.
//
//   <pano-view data-src="/image" data-views='[{"yaw": 45, "pitch": 0, "fov": 90}]' data-view="1" data-yaw="0" data-pitch="0" data-fov="90">
//     <img src="/image" alt="...">      what is shown without scripts and without WebGL
//   </pano-view>                     data-broken and data-flat: what to say when there is no image, and when there is no WebGL
//
// Drag, wheel, two fingers, arrow keys, plus and minus turn it. Whenever it looks elsewhere it says so with an event:
// "look", { yaw, pitch, fov, aspect, byHand }. Attributes that change are followed, and the ones of the look are kept up to date.

import { Picture, WIDEST } from "./pano-picture.js";
import { edge, middle, toView, turned } from "./sphere.js";

const LOOK = ["yaw", "pitch", "fov"];
const FOV = [25, 115]; // app/evaluations/state.py has the same limits
const PITCH = [-85, 85];
const STEP = 6; // degrees of an arrow key
const POINTS = 24; // to a side of an outline
const NEAR = 0.05; // depth below which an outline is behind the eye

const between = (value, [low, high]) => Math.max(low, Math.min(high, value));

// The outlines over it

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** One outline and one number for each view. */
class Overlay {
  constructor() {
    this.root = svg("svg", { "aria-hidden": "true" });
    this.marks = [];
  }

  show(views, chosen) {
    this.marks = views.map((view, index) => {
      const on = index + 1 === chosen ? " on" : "";
      const number = svg("text", { y: 4 });
      number.textContent = index + 1;
      const label = svg("g", { class: `fl${on}` }, svg("rect", { x: -11, y: -10, width: 22, height: 20, rx: 4 }), number);
      return { edge: edge(view, POINTS), middle: middle(view), outline: svg("path", { class: `fp${on}` }), label };
    });
    this.root.replaceChildren(...this.marks.map((mark) => mark.outline), ...this.marks.map((mark) => mark.label));
  }

  draw({ yaw, pitch, fov }, width, height) {
    const scale = width / 2 / Math.tan((fov * Math.PI) / 360);
    const place = (direction) => {
      const [x, y, z] = toView(direction, yaw, pitch);
      return z > NEAR ? [width / 2 + (x / z) * scale, height / 2 - (y / z) * scale] : null;
    };
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const { edge, middle, outline, label } of this.marks) {
      outline.setAttribute("d", line([...edge, edge[0]].map(place)));
      const at = place(middle);
      label.setAttribute("display", at ? "inline" : "none");
      if (at) label.setAttribute("transform", `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})`);
    }
  }
}

/** A path through the points, with a gap at every null. */
function line(points) {
  const command = (index) => (points[index - 1] ? "L" : "M");
  return points.map((point, index) => (point ? `${command(index)}${point[0].toFixed(1)} ${point[1].toFixed(1)}` : "")).join("");
}

// The element

class PanoView extends HTMLElement {
  static observedAttributes = ["data-src", "data-views", "data-view", "data-yaw", "data-pitch", "data-fov"];

  connectedCallback() {
    this.image = this.querySelector("img");
    this.image.onload = () => this.loaded();
    this.image.onerror = () => this.failed();
    this.canvas = document.createElement("canvas");
    this.overlay = new Overlay();
    this.append(this.canvas, this.overlay.root);
    this.startPicture();
    this.listen();
    this.resizing = new ResizeObserver(() => this.redraw());
    this.resizing.observe(this);
    this.read();
    if (this.image.complete && this.image.naturalWidth) this.loaded();
    else if (this.image.complete && this.image.getAttribute("src")) this.failed();
  }

  disconnectedCallback() {
    this.resizing.disconnect();
    this.picture?.release();
    this.picture = null;
    this.classList.remove("ready");
    this.canvas.remove();
    this.overlay.root.remove();
  }

  attributeChangedCallback(name, _before, now) {
    const isOurs = LOOK.some((each) => name === `data-${each}` && now === this[each]?.toFixed(1));
    if (!this.overlay || this.reading || isOurs) return;
    this.reading = true; // several change together
    queueMicrotask(() => {
      this.reading = false;
      if (this.isConnected) this.read();
    });
  }

  /** Take what the attributes say. */
  read() {
    const { src, views, view, yaw, pitch, fov } = this.dataset;
    if (this.src !== src) this.request(src);
    this.overlay.show(JSON.parse(views), Number(view));
    this.look(Number(yaw), Number(pitch), Number(fov));
  }

  // Image and WebGL

  startPicture() {
    try {
      this.picture = new Picture(this.canvas);
    } catch {
      return this.say("flat", this.dataset.flat); // and the flat image stays
    }
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // says that we can go on once it is back
      this.classList.remove("ready");
    });
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.picture.prepare();
      this.loaded();
    });
  }

  request(src) {
    this.src = src;
    this.classList.remove("ready");
    this.querySelector(".broken")?.remove();
    const widest = this.picture?.widest ?? WIDEST;
    const wanted = widest < WIDEST ? `${src}&width=${widest}` : src;
    if (this.image.getAttribute("src") !== wanted) this.image.src = wanted;
  }

  loaded() {
    if (!this.picture || this.picture.gl.isContextLost()) return;
    this.picture.load(this.image);
    this.classList.add("ready");
    this.redraw();
  }

  failed() {
    this.say("broken", this.dataset.broken);
  }

  /** A sentence over the image; an older one of its kind goes. */
  say(kind, text) {
    this.querySelector(`.${kind}`)?.remove();
    const message = document.createElement("p");
    message.className = kind;
    message.textContent = text ?? "";
    this.append(message);
  }

  // Looking

  /** Turn to yaw and pitch, and zoom to a field of view; degrees. */
  look(yaw, pitch, fov = this.fov, byHand = false) {
    Object.assign(this, { yaw: turned(yaw), pitch: between(pitch, PITCH), fov: between(fov, FOV) });
    if (byHand) this.note();
    this.redraw();
    this.tell(byHand);
  }

  turn(right, up) {
    this.look(this.yaw + right, this.pitch + up, this.fov, true);
  }

  zoom(factor) {
    this.look(this.yaw, this.pitch, this.fov * factor, true);
  }

  /** Keep the attributes as the view is, so that a later change to them is one. */
  note() {
    for (const name of LOOK) this.dataset[name] = this[name].toFixed(1);
  }

  tell(byHand = false) {
    if (!this.picture) return;
    const { yaw, pitch, fov } = this;
    const detail = { yaw, pitch, fov, aspect: this.clientWidth / this.clientHeight || 1, byHand };
    this.dispatchEvent(new CustomEvent("look", { bubbles: true, detail }));
  }

  redraw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      if (this.isConnected && this.classList.contains("ready")) this.draw();
    });
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this;
    if (!width || !height) return;
    this.picture.draw(this, Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio));
    this.overlay.draw(this, width, height);
  }

  // Hands

  listen() {
    if (this.fingers) return; // moved in the page, not made
    this.fingers = new Map();
    this.addEventListener("pointerdown", (event) => {
      this.fingers.set(event.pointerId, event);
      this.setPointerCapture(event.pointerId);
    });
    this.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    this.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.addEventListener("keydown", (event) => this.key(event));
  }

  /** One finger or the mouse turns, two zoom. */
  drag(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const other = [...this.fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    this.fingers.set(event.pointerId, event);
    if (other) {
      const apart = (finger) => Math.max(1, Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY));
      return this.zoom(apart(before) / apart(event));
    }
    const degrees = this.fov / this.clientWidth;
    this.turn((before.clientX - event.clientX) * degrees, (event.clientY - before.clientY) * degrees);
  }

  /** At its limits the wheel is the page's again. */
  wheel(event) {
    const wanted = between(this.fov * Math.exp(event.deltaY * 0.001), FOV);
    if (wanted === this.fov) return;
    event.preventDefault();
    this.look(this.yaw, this.pitch, wanted, true);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      ArrowLeft: () => this.turn(-STEP, 0),
      ArrowRight: () => this.turn(STEP, 0),
      ArrowUp: () => this.turn(0, STEP),
      ArrowDown: () => this.turn(0, -STEP),
      "+": () => this.zoom(0.9),
      "=": () => this.zoom(0.9),
      "-": () => this.zoom(1 / 0.9),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}

customElements.define("pano-view", PanoView);
