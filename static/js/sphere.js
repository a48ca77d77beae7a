// Directions, views and their outlines on the sphere and on the map. Pure functions, degrees in and out.
//
// As in panollava/layouts.py: longitude 0 is the middle of the image, + to the right; latitude + up. A direction is [x right, y up, z ahead].
// A view is { yaw, pitch, fov, aspect, projection }: fov is from its left edge to its right one, aspect its width over its height, 1 if not given.
// projection "equirectangular": no camera, but fov degrees of longitude over the full height.

const RADIAN = Math.PI / 180;

/** A direction as somebody sees it who looks to (yaw, pitch), as one of the panorama. */
function toWorld([x, y, z], yaw, pitch) {
  const up = y * Math.cos(pitch * RADIAN) + z * Math.sin(pitch * RADIAN);
  const ahead = z * Math.cos(pitch * RADIAN) - y * Math.sin(pitch * RADIAN);
  return [x * Math.cos(yaw * RADIAN) + ahead * Math.sin(yaw * RADIAN), up, ahead * Math.cos(yaw * RADIAN) - x * Math.sin(yaw * RADIAN)];
}

/** The way back. */
export function toView([x, y, z], yaw, pitch) {
  const right = x * Math.cos(yaw * RADIAN) - z * Math.sin(yaw * RADIAN);
  const ahead = x * Math.sin(yaw * RADIAN) + z * Math.cos(yaw * RADIAN);
  return [right, y * Math.cos(pitch * RADIAN) - ahead * Math.sin(pitch * RADIAN), y * Math.sin(pitch * RADIAN) + ahead * Math.cos(pitch * RADIAN)];
}

/** Points along the edge of a square from -1 to 1, from its top left corner clockwise, n to a side: [right, up]. */
function around(n) {
  const along = Array.from({ length: n }, (_, k) => (2 * k) / n - 1);
  return [...along.map((t) => [t, 1]), ...along.map((t) => [1, -t]), ...along.map((t) => [-t, -1]), ...along.map((t) => [-1, t])];
}

const isCrop = (view) => view.projection === "equirectangular";

/** The edge of a crop on the map: [longitude, latitude]. */
const cropEdge = ({ yaw, fov }, n) => around(n).map(([x, y]) => [yaw + (x * fov) / 2, y * 90]);

/** [longitude, latitude] as a direction. */
const direction = ([longitude, latitude]) => toWorld([0, 0, 1], longitude, latitude);

/** Directions along a view's edge, from its top left corner clockwise, n to a side, evenly spaced in the view. */
export function edge(view, n = 24) {
  if (isCrop(view)) return cropEdge(view, n).map(direction);
  const { yaw, pitch = 0, fov, aspect = 1 } = view;
  const right = Math.tan((fov / 2) * RADIAN);
  return around(n).map(([x, y]) => toWorld([x * right, (y * right) / aspect, 1], yaw, pitch));
}

/** Where a view's number stands: in its middle, that of the whole panorama overhead. */
export const middle = (view) => (isCrop(view) && view.fov >= 360 ? [0, 1, 0] : toWorld([0, 0, 1], view.yaw, view.pitch ?? 0));

/** What a view shows: [longitude, latitude] of the points of its edge; panollava.views.footprint gives the same. */
export function footprint(view, n = 24) {
  if (isCrop(view)) return cropEdge(view, n).map(([longitude, latitude]) => [turned(longitude), latitude]);
  return edge(view, n).map(([x, y, z]) => [Math.atan2(x, z) / RADIAN, Math.atan2(y, Math.hypot(x, z)) / RADIAN]);
}

/** A footprint as an SVG path on a map of 360 x 180; one across the seam is drawn at both ends, one around a pole is left open. */
export function mapPath(view, n = 24) {
  const points = unwrapped(footprint(view, n));
  const [first, last] = [points[0], points.at(-1)];
  const closed = Math.abs(last[0] - first[0]) < 180;
  const around = closed ? points : [...points, [first[0] + 360 * Math.sign(last[0] - first[0]), first[1]]];
  const path = (turn) => "M" + around.map(([x, y]) => `${(x + turn + 180).toFixed(1)} ${(90 - y).toFixed(1)}`).join("L") + (closed ? "Z" : "");
  return [-360, 0, 360].map(path).join("");
}

/** Longitudes without jumps: each is the nearest one to its neighbour's. */
function unwrapped(points) {
  let last = points[0][0];
  return points.map(([longitude, latitude]) => {
    last = longitude + 360 * Math.round((last - longitude) / 360);
    return [last, latitude];
  });
}

/** Any angle as one in (-180, 180]. */
export const turned = (degrees) => 180 - ((((180 - degrees) % 360) + 360) % 360);
