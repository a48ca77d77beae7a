// Directions, views and their outlines on the sphere and on the map. Pure functions, degrees in and out.
//
// As in panollava/views.py: longitude 0 is the middle of the image, + to the right; latitude + up. A direction is [x right, y up, z ahead].
// A view is { yaw, pitch, fov, aspect }: fov is from its left edge to its right one, aspect its width over its height, 1 if not given.

const RADIAN = Math.PI / 180;

/** A direction as somebody sees it who looks to (yaw, pitch), as one of the panorama. */
export function toWorld([x, y, z], yaw, pitch) {
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

/** Directions along a view's edge, from its top left corner clockwise, n to a side, evenly spaced in the view. */
export function edge({ yaw, pitch = 0, fov, aspect = 1 }, n = 24) {
  const right = Math.tan((fov / 2) * RADIAN);
  const up = right / aspect;
  const along = Array.from({ length: n }, (_, k) => (2 * k) / n - 1);
  const plane = [...along.map((t) => [t, 1]), ...along.map((t) => [1, -t]), ...along.map((t) => [-t, -1]), ...along.map((t) => [-1, t])];
  return plane.map(([x, y]) => toWorld([x * right, y * up, 1], yaw, pitch));
}

/** What a view shows: [longitude, latitude] of the points of its edge; panollava.views.footprint gives the same. */
export function footprint(view, n = 24) {
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
