// Lists: short addresses from their forms, keys to go through the rows, and what is picked for a comparison.

import { keys } from "./app.js";

// A form's empty fields stay out of the address.
document.addEventListener("formdata", ({ target, formData }) => {
  if (!target.matches("form.lean")) return;
  for (const [name, value] of [...formData]) if (value === "") formData.delete(name);
});

// Rows

const links = () => [...document.querySelectorAll("table.list tbody tr td a:first-of-type")].filter((link) => link.closest("td").matches(".who"));

function go(step) {
  const rows = links();
  const here = rows.indexOf(document.activeElement?.closest("tr")?.querySelector(".who a"));
  const next = here < 0 ? (step > 0 ? 0 : rows.length - 1) : here + step;
  rows[next]?.focus();
}

keys({
  j: [() => go(1), "Next row"],
  k: [() => go(-1), "Previous row"],
});

// Picking: the comparison is a form, so it also works without this; here its button says how many there are.

const form = document.getElementById("pick");

function count() {
  const picked = form.querySelectorAll("[name=ids]:checked").length;
  const button = document.getElementById("compare");
  button.disabled = picked < 2;
  button.querySelector(".n").textContent = picked ? String(picked) : "";
}

if (form) {
  form.addEventListener("change", count);
  document.body.addEventListener("htmx:after:swap", count);
  keys({
    x: [() => document.activeElement?.closest("tr")?.querySelector("[name=ids]")?.click(), "Pick the row"],
    c: [() => document.getElementById("compare").click(), "Compare what is picked"],
  });
  count();
}
