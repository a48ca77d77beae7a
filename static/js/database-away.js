// The page that waits for the database: asks every few seconds whether it is back, shows that it does, and reads what was asked for anew.

import { fill, put } from "./words.js";

const EVERY_MS = 3000;
const TICK_MS = 100;

const page = document.getElementById("database-away");
const again = page.querySelector(".again");
const bar = again.querySelector("progress");
const says = document.getElementById("again");
const back = page.querySelector(".back");
let count = 1; // the one that led here
let waited = 0;

again.hidden = false;

function tick() {
  waited += TICK_MS;
  bar.value = waited / EVERY_MS;
  if (waited >= EVERY_MS) return ask();
  put(says, fill(says.dataset.waiting, { seconds: Math.ceil((EVERY_MS - waited) / 1000), count }));
  setTimeout(tick, TICK_MS);
}

async function ask() {
  count += 1;
  put(says, says.dataset.asking);
  const answer = await fetch("/readyz", { cache: "no-store" }).catch(() => null);
  if (answer?.ok) return goOn();
  waited = 0;
  tick();
}

/** What a form had sent is not sent again. */
function goOn() {
  again.hidden = true;
  const isRead = "reload" in page.dataset;
  put(back, isRead ? back.dataset.reading : back.dataset.back);
  if (isRead) location.reload();
}

tick();
