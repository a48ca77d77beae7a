// The notices of parts that do not answer, as the live stream tells of them. What a page knew when it was rendered is in it already.

import { localise } from "./ages.js";
import { live } from "./live.js";

const notices = [...document.querySelectorAll("#away [data-part]")];

live.on("outages", (outages) => {
  for (const notice of notices) {
    const since = outages[notice.dataset.part];
    notice.hidden = !since;
    if (since) notice.querySelector("time").dateTime = since;
  }
  localise();
  document.body.dataset.database = outages.database ? "away" : "there";
});
