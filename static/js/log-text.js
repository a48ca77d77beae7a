// What a person reads of a trainer's output: the last state of a progress bar, colours as classes, levels, marks.
// app/logs/plain.py says the same for pages without scripts. Pure functions but for `mark`, which works on a node.

import { AnsiUp } from "../vendor/ansi_up-6.0.6/ansi_up.js";

const CONTROL = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f](?:(?<=\x1b)(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~]))?/g;
const COLOUR = /^\x1b\[[\d;]*m$/;
const TIME = /^\d\d:\d\d:\d\d /;
const LONGEST = 10000; // characters of a line that are shown

/** Text without what steers a terminal; carriage returns stay. */
export const strip = (text) => text.replace(CONTROL, "");

/** What stands on the line in the end: a progress bar goes back to its start for every state. Colours stay. */
export function shown(line) {
  const states = line.replace(CONTROL, (found) => (COLOUR.test(found) ? found : "")).split("\r");
  return states.findLast((state) => strip(state)) ?? "";
}

/** The function that says "error", "warning" or null of a line without colours, made from the patterns of app/logs/plain.py. */
export function levelTeller(patterns) {
  const says = patterns.map(([level, pattern]) => [level, new RegExp(pattern)]);
  return (text) => says.find(([, pattern]) => pattern.test(text))?.[0] ?? null;
}

/** Colours and weights as classes: a page of ours allows no style of its own in an element. */
class Painter extends AnsiUp {
  transform_to_html({ text, bold, faint, italic, underline, fg, bg }) {
    const classes = Object.entries({ bold, faint, italic, underline }).flatMap(([name, on]) => (on ? `ansi-${name}` : []));
    if (fg) classes.push(`${this.named(fg)}-fg`);
    if (bg) classes.push(`${this.named(bg)}-bg`);
    const html = this.escape_txt_for_html(text);
    return classes.length && text ? `<span class="${classes.join(" ")}">${html}</span>` : html;
  }

  /** One of the sixteen colours that have a name, the nearest one. */
  named({ rgb, class_name }) {
    if (class_name !== "truecolor") return class_name;
    const far = (colour) => colour.rgb.reduce((sum, value, i) => sum + (value - rgb[i]) ** 2, 0);
    return this.ansi_colors.flat().reduce((best, each) => (far(each) < far(best) ? each : best)).class_name;
  }
}

const painter = new Painter();
painter.escape_html = true;
painter.use_classes = true;

const painted = (text) => painter.ansi_to_html(`\x1b[0m${text}`);

/** A raw line as { html, level }. The time in front of it can be hidden where there is little room. */
export function paint(line, levelOf) {
  const end = shown(line);
  const cut = end.length > LONGEST ? `${end.slice(0, LONGEST)}\x1b[0m …` : end;
  const time = TIME.exec(cut)?.[0] ?? "";
  const html = time ? `<span class="at">${time}</span>${painted(cut.slice(time.length))}` : painted(cut);
  return { html, level: levelOf(strip(end)) };
}

/** Put <mark> around every place of a node's text that is `wanted`, whatever the case of its letters. */
export function mark(node, wanted) {
  if (!wanted) return;
  const pattern = new RegExp(wanted.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "giu");
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) markText(text, pattern);
}

function markText(text, pattern) {
  const parts = [];
  let at = 0;
  for (const found of text.data.matchAll(pattern)) {
    const marked = document.createElement("mark");
    marked.textContent = found[0];
    parts.push(text.data.slice(at, found.index), marked);
    at = found.index + found[0].length;
  }
  if (parts.length) text.replaceWith(...parts, text.data.slice(at));
}

/** 1536 -> "1.50 kB", as app/formats.py writes it. */
export function size(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  while (count >= 1000 && units.length > 1) {
    count /= 1024;
    units.shift();
  }
  return `${count.toFixed(units[0] === "B" || count >= 100 ? 0 : count >= 10 ? 1 : 2)} ${units[0]}`;
}
