// Texts of the page: the server has put them into the reader's language, values are put in here.

/** A sentence with values put in: fill("{n} new points", { n: 3 }). */
export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** Have an element say this. A text that stays the same is left alone, so that what is selected in it stays selected and is not read out anew. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
